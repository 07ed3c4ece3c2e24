"""Pretrains the small network that the package ships, on drawn shapes that are no nuts.

    python -m nutclf.train.pretrain

The committed file, 961,851 bytes, came from one run with the defaults: 23 minutes on 2 busy cores.
Of 1000 shapes it had not seen it names the outline of 0.66 (13 kinds), the texture of 0.33 (8) and
the hue of 0.89 (8). A logistic regression on its frozen features tells 0.47 of 200 drawn test nuts
(valid 0.53), and 0.17 on those of random weights.
"""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import nutclf.model
from nutclf.data.shapes import N_LABELS, draw_shape
from nutclf.model import cuts
from nutclf.model.backbones import find_spec
from nutclf.model.half_precision import save_half_precision
from nutclf.model.network import scaling_layer

BACKBONE = "mobilenetv2-drawn"
_TASKS = ("outline", "texture", "hue")
# Keras' MobileNetV2 has 0.999, made for long trainings: 5000 steps later it would still lag.
_BATCH_NORM_MOMENTUM = 0.98

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretraining:
    """How the shipped weights came about; the defaults made the committed file.

    Attributes:
      n_train, n_valid: pictures of shapes, drawn once.
      epochs: passes over the training pictures.
      batch_size: pictures a step.
      learning_rate: AdamW's, falling to 0 along half a cosine.
      label_smoothing: probability mass spread evenly over all labels.
      seed: of the drawings (validation takes the next), the initial weights and the order.
    """

    n_train: int = 12_000
    n_valid: int = 1_000
    epochs: int = 14
    batch_size: int = 32
    learning_rate: float = 4e-3
    label_smoothing: float = 0.05
    seed: int = 0


def pretrain(
    build: Callable[[], keras.Model], settings: Pretraining, *, verbose: int = 0
) -> tuple[keras.Model, dict[str, float]]:
    """Trains a backbone from nothing to name outline, texture and hue of drawn shapes.

    Args:
      build: makes the backbone, scaled float32 [B, 96, 96, 3] to features [B, h, w, C].
      settings: how.
      verbose: Keras' own: 0 says nothing, 2 one line an epoch.

    Returns:
      The trained backbone, and its validation accuracy by task.

    Seeds Python, NumPy and TensorFlow. Equal arguments give equal weights on one machine.
    """
    keras.utils.set_random_seed(settings.seed)
    train = _draw(settings.n_train, settings.seed)
    valid = _draw(settings.n_valid, settings.seed + 1)
    backbone = build()
    model = _with_heads(backbone)
    steps = settings.n_train // settings.batch_size
    _compile(model, settings, steps)
    model.fit(
        _batches(*train, settings),
        steps_per_epoch=steps,
        epochs=settings.epochs,
        shuffle=False,  # the batches come shuffled; Keras would warn
        verbose=verbose,
    )
    figures = model.evaluate(valid[0], _by_task(valid[1]), verbose=0, return_dict=True)
    return backbone, {task: float(figures[f"{task}_accuracy"]) for task in _TASKS}


def _draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [count, 96, 96, 3] and their labels int64 [count, 3]."""
    with ThreadPoolExecutor() as pool:
        drawn = list(pool.map(lambda index: draw_shape(index, seed), range(count)))
    return np.stack([picture for picture, _ in drawn]), np.stack([labels for _, labels in drawn])


def _with_heads(backbone: keras.Model) -> keras.Model:
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = _BATCH_NORM_MOMENTUM
    pixels = keras.Input(backbone.input_shape[1:], name="pixels")
    pooled = cuts.trunk(backbone)(scaling_layer(find_spec(BACKBONE))(pixels))
    heads = {
        task: keras.layers.Dense(width, name=task)(pooled)
        for task, width in zip(_TASKS, N_LABELS, strict=True)
    }
    return keras.Model(pixels, heads)


def _compile(model: keras.Model, settings: Pretraining, steps: int) -> None:
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate, decay_steps=steps * settings.epochs
    )
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=settings.label_smoothing
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.02),
        loss={task: loss for task in _TASKS},
        metrics={task: ["accuracy"] for task in _TASKS},
        jit_compile=False,  # measured 20 times slower on a processor
    )


def _by_task(labels: np.ndarray) -> dict[str, np.ndarray]:
    """One-hot labels a task, float32 [N, width], from indices [N, 3]."""
    return {
        task: np.eye(width, dtype=np.float32)[column]
        for task, width, column in zip(_TASKS, N_LABELS, labels.T, strict=True)
    }


def _batches(
    pictures: np.ndarray, labels: np.ndarray, settings: Pretraining
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Batches without end, each picture mirrored and turned by quarters at random."""
    rng = np.random.default_rng(settings.seed)
    while True:
        order = rng.permutation(len(pictures))
        for start in range(0, len(order) - settings.batch_size + 1, settings.batch_size):
            rows = order[start : start + settings.batch_size]
            turned = [np.rot90(picture, rng.integers(4)) for picture in pictures[rows]]
            mirrored = [picture[:: rng.choice((-1, 1))] for picture in turned]
            yield np.stack(mirrored), _by_task(labels[rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains with the default settings and writes the weights to where the package looks."""
    spec = find_spec(BACKBONE)
    shipped = Path(nutclf.model.__file__).parent / spec.weights_file
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=shipped, help="file to write (%(default)s)")
    out = parser.parse_args(arguments).out
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tf.config.experimental.enable_op_determinism()
    backbone, accuracies = pretrain(spec.build, Pretraining(), verbose=2)
    save_half_precision(backbone, out)
    log.info("Validation accuracy: %s. Wrote %s, %d bytes.", accuracies, out, out.stat().st_size)


if __name__ == "__main__":
    main()
