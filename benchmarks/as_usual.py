"""Side B: what the Keras transfer-learning guide and the Optuna examples lead a user to write.

Each trial reads the folders again, augments inside the model, and pushes every image through the
frozen base in every epoch. Run by `speed.py`; prints one line of JSON a trial.
"""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from benchmarks.recipes import EPOCHS, RECIPES
from nutclf.config import Augmentation, Recipe
from nutclf.model.backbones import load_backbone

SIZE = 224


def augmentation() -> keras.Sequential:
    """The same changes as this project's views, as the guide writes them."""
    a = Augmentation()
    enlarged = round(SIZE * a.resize)
    return keras.Sequential(
        [
            keras.layers.RandomRotation(a.rotation, fill_mode="reflect"),
            keras.layers.Resizing(enlarged, enlarged),
            keras.layers.RandomCrop(SIZE, SIZE),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomZoom(a.zoom, fill_mode="reflect"),
        ]
    )


def train(recipe: Recipe, data: Path) -> float:
    """One trial; returns the valid accuracy of the last epoch."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    train_set, valid_set = (
        keras.utils.image_dataset_from_directory(
            data / split,
            label_mode="categorical",
            image_size=(SIZE, SIZE),
            batch_size=recipe.batch_size,
            shuffle=split == "train",
            seed=0,
            verbose=False,
        )
        for split in ("train", "valid")
    )
    augment = augmentation()
    train_set = train_set.map(
        lambda pixels, label: (augment(pixels, training=True), label),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)
    base = load_backbone("mobilenetv2").model
    base.trainable = recipe.n_unfrozen > 0
    for layer in base.layers[: len(base.layers) - recipe.n_unfrozen]:
        layer.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(256, activation="relu")(x)
    x = keras.layers.Dropout(recipe.dropout_rate)(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    model.compile(
        keras.optimizers.Adam(recipe.learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    callbacks = [keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1)]
    history = model.fit(
        train_set,
        validation_data=valid_set,
        epochs=recipe.epochs,
        callbacks=callbacks if recipe.lr_schedule == "plateau" else [],
        verbose=0,
    )
    return max(history.history["val_accuracy"])


def main() -> None:
    """Runs RECIPES[FIRST:LAST]; usage: as_usual.py DATA FIRST LAST [EPOCHS]."""
    data, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    epochs = int(sys.argv[4]) if len(sys.argv) > 4 else EPOCHS
    for recipe in (replace(recipe, epochs=epochs) for recipe in RECIPES[first:last]):
        started = time.perf_counter()
        accuracy = train(recipe, data)
        seconds = time.perf_counter() - started
        print(json.dumps({"valid_accuracy": accuracy, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
