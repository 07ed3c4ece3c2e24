"""One recipe made trainable: built and traced once, then fitted afresh on any rows."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from nutclf.config import PLATEAU, STEP, WARMUP_LEARNING_RATE, Recipe
from nutclf.model.network import head_of, in_precision
from nutclf.train.features import Features

_NAMES = {  # Keras' and ours
    "loss": "train_loss",
    "accuracy": "train_accuracy",
    "val_loss": "valid_loss",
    "val_accuracy": "valid_accuracy",
}

OnEpoch = Callable[[int, dict[str, float]], None]
"""Takes the 1-based epoch and its figures; what it raises ends the fit."""


class NonFiniteLoss(Exception):
    """The loss or a weight became infinite or not a number: this recipe cannot be trained."""


@dataclass(frozen=True)
class History:
    """The epochs of a fit: losses, accuracies and learning rate."""

    epochs: list[dict[str, float]]
    best_epoch: int  # 1-based; its weights are the ones kept

    @property
    def best(self) -> dict[str, float]:
        """The figures of the best epoch."""
        return self.epochs[self.best_epoch - 1]


class Learner:
    """The tail of one recipe, with its optimizer; each fit starts from the same initial state.

    Keras traces a training graph for seconds; the folds of one recipe share it. The tail, from
    `network.build_tail`, takes what layer `cut` puts out, and its layers' `trainable` flags say
    what trains. The seed is of the order of examples. In a mixed precision (see
    `nutclf.config.PRECISIONS`) a copy of the tail trains, and the tail takes over its weights.
    """

    def __init__(
        self,
        tail: keras.Model,
        cut: int,
        recipe: Recipe,
        seed: int,
        precision: str = "float32",
    ):
        self.tail, self.cut, self.recipe, self._seed = tail, cut, recipe, seed
        self.precision, self.n_epochs = precision, recipe.warmup_epochs + recipe.epochs
        trained = tail if precision == "float32" else in_precision(tail, precision)
        self._models = [_compiled(trained, recipe.learning_rate, precision)]
        if recipe.warmup_epochs:
            self._models.append(_compiled(head_of(trained), WARMUP_LEARNING_RATE, precision))
        variables = [v for m in self._models for v in (*m.variables, *m.optimizer.variables)]
        self._initial = [(variable, np.array(variable)) for variable in variables]

    def fit(
        self,
        at_cut: Features,
        pooled: Features | None,
        rows: np.ndarray,
        labels: np.ndarray,
        valid: tuple[np.ndarray, np.ndarray],
        n_views: int,
        better: Callable[[dict, dict], bool],
        on_epoch: OnEpoch = lambda epoch, figures: None,
    ) -> History:
        """Trains from the initial state and leaves `tail` with the weights of its best epoch.

        Args:
          at_cut, pooled: what enters the tail, and what the head warms up on (None without a
            warm-up). Epoch e sees view e mod `n_views`, warm-up included.
          rows, labels: images to learn from, int64 [n], and classes of the whole split, int64 [N].
          valid: features [n, ...] and one-hot labels [n, n_classes], evaluated each epoch.
          better: whether one epoch's figures beat another's.

        Raises `NonFiniteLoss`: the loss is inf or nan.
        """
        one_hot = np.eye(self.tail.output_shape[-1], dtype=np.float32)[labels]
        size, warmup = self.recipe.batch_size, self.recipe.warmup_epochs

        def batches(features: Features, epochs: range) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            # They end with the last epoch because Keras reads ahead: from an endless source it
            # would take batches whose view has not been prepared.
            for epoch in epochs:
                order = np.random.default_rng((self._seed, epoch)).permutation(rows)
                for start in range(0, len(order), size):
                    # Sorted: a batch is a set to the optimizer, and the disk reads forward.
                    batch = np.sort(order[start : start + size])
                    yield features.batch(epoch % n_views, batch), one_hot[batch]

        for variable, value in self._initial:
            variable.assign(value)
        options = {"steps_per_epoch": math.ceil(len(rows) / size), "shuffle": False, "verbose": 0}
        if warmup:
            # A random head would wreck the layers below it: it learns first, alone, on vectors.
            self._models[1].fit(batches(pooled, range(warmup)), epochs=warmup, **options)
        images = {"train_accuracy": len(rows), "valid_accuracy": len(valid[1])}
        keeper = _KeepBestEpoch(better, on_epoch, images)
        self._models[0].fit(
            batches(at_cut, range(warmup, self.n_epochs)),
            epochs=self.recipe.epochs,
            validation_data=valid,
            validation_batch_size=256,
            callbacks=[keras.callbacks.TerminateOnNaN(), keeper, _schedule(self.recipe)],
            **options,
        )
        if not keeper.best_epoch:
            raise NonFiniteLoss("in the first epoch")
        self.tail.set_weights(keeper.best_weights)
        return History(keeper.epochs, keeper.best_epoch)


def _compiled(model: keras.Model, learning_rate: float, precision: str) -> keras.Model:
    optimizer = keras.optimizers.Adam(learning_rate)
    if precision == "mixed_float16":  # small gradients would be 0; Keras asks the global policy
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer,
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # measured 20 times slower on a processor
    )
    return model


class _KeepBestEpoch(keras.callbacks.Callback):
    """Collects each epoch's figures and keeps the weights of the best one.

    `images` is how many of them each accuracy counts.
    """

    def __init__(
        self, better: Callable[[dict, dict], bool], on_epoch: OnEpoch, images: Mapping[str, int]
    ):
        super().__init__()
        self._better, self._on_epoch, self._images = better, on_epoch, images
        self.epochs: list[dict[str, float]] = []
        self.best_epoch, self.best_weights = 0, None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        figures = {ours: float(logs[theirs]) for theirs, ours in _NAMES.items()}
        # The rate is read before the schedule, later in the list of callbacks, changes it.
        figures["learning_rate"] = float(self.model.optimizer.learning_rate)
        # Keras' are float32, of which 0.94 would be recorded as 0.9399999976158142.
        figures = {name: float(str(np.float32(value))) for name, value in figures.items()}
        figures |= {name: round(figures[name] * n) / n for name, n in self._images.items()}
        weights = self.model.get_weights()
        # ReLU makes 0 of NaN: a network can be destroyed while its loss looks finite.
        whole = all(np.isfinite(weight).all() for weight in weights)
        if not whole or not all(math.isfinite(value) for value in figures.values()):
            raise NonFiniteLoss(f"in epoch {epoch + 1}: {figures}, weights finite: {whole}")
        self.epochs.append(figures)
        if self.best_epoch == 0 or self._better(figures, self.epochs[self.best_epoch - 1]):
            self.best_epoch, self.best_weights = epoch + 1, weights
        self._on_epoch(epoch + 1, figures)


def rate_at(recipe: Recipe, epoch: int) -> float:
    """The learning rate of epoch `epoch` (0 first) under a schedule fixed in advance.

    cosine: half a cosine towards 0 after the last epoch (Loshchilov & Hutter 2017, no restarts).
    step: times the factor of `STEP` after each stage. Others, plateau too: the base rate.
    """
    share = {
        "cosine": 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs)),
        "step": STEP["factor"] ** (epoch * STEP["stages"] // recipe.epochs),
    }
    return recipe.learning_rate * share.get(recipe.lr_schedule, 1)


def _schedule(recipe: Recipe) -> keras.callbacks.Callback:
    if recipe.lr_schedule == "plateau":
        return keras.callbacks.ReduceLROnPlateau("val_loss", **PLATEAU)
    return keras.callbacks.LearningRateScheduler(lambda epoch: rate_at(recipe, epoch))
