"""The fit of one tail: from features of views to the weights of its best epoch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from nutclf.config import WARMUP_LEARNING_RATE, Recipe
from nutclf.train.features import Features
from nutclf.train.schedules import schedule_callback

MONITOR = "val_cross_entropy"
_NAMES = {
    "cross_entropy": "train_loss",
    "accuracy": "train_accuracy",
    "val_cross_entropy": "valid_loss",
    "val_accuracy": "valid_accuracy",
    "learning_rate": "learning_rate",
}

OnEpoch = Callable[[int, dict[str, float]], None]


class NonFiniteLoss(Exception):
    """The loss became infinite or not a number: this recipe cannot be trained."""


@dataclass(frozen=True)
class Examples:
    """What one fit learns from, or is watched on.

    Attributes:
      features: of one split's images.
      rows: which of them, int64 [n].
      labels: class of every image of the split (not of `rows` only), int64 [N].
    """

    features: Features
    rows: np.ndarray
    labels: np.ndarray

    def one_hot(self, rows: np.ndarray, n_classes: int) -> np.ndarray:
        """float32 [len(rows), n_classes]."""
        return np.eye(n_classes, dtype=np.float32)[self.labels[rows]]


@dataclass(frozen=True)
class History:
    """What a fit went through.

    Attributes:
      epochs: a dict an epoch, its keys the values of `_NAMES`. Losses are cross-entropies without
        label smoothing, so that recipes compare.
      best_epoch: 1-based; its weights are the ones kept.
    """

    epochs: list[dict[str, float]]
    best_epoch: int

    @property
    def best(self) -> dict[str, float]:
        """The figures of the best epoch."""
        return self.epochs[self.best_epoch - 1]


def fit(
    tail: keras.Model,
    recipe: Recipe,
    train: Examples,
    valid: tuple[np.ndarray, np.ndarray],
    *,
    n_views: int,
    seed: int,
    better: Callable[[dict, dict], bool],
    on_epoch: OnEpoch = lambda epoch, figures: None,
) -> History:
    """Trains `tail` in place and leaves it with the weights of its best epoch.

    Args:
      tail: from `network.build_tail`; its layers' `trainable` flags say what trains.
      recipe: how.
      train: examples to learn from; epoch e sees view e mod `n_views`.
      valid: features [n, ...] and one-hot labels [n, n_classes], watched each epoch.
      n_views: views of an image that exist.
      seed: of the order of the examples.
      better: whether one epoch's figures beat another's.
      on_epoch: called with the 1-based epoch and its figures; what it raises ends the fit.

    Raises:
      NonFiniteLoss: the loss is inf or nan.
    """
    steps = math.ceil(len(train.rows) / recipe.batch_size)
    batches = partial(_batches, train, tail.output_shape[-1], recipe.batch_size, n_views, seed)
    warm_up = range(recipe.warmup_epochs)
    if warm_up:
        _warm_up(tail, recipe, batches(warm_up), steps)
    _compile(tail, recipe, recipe.learning_rate)
    keeper = _KeepBestEpoch(better, on_epoch)
    tail.fit(
        batches(range(len(warm_up), len(warm_up) + recipe.epochs)),
        epochs=recipe.epochs,
        steps_per_epoch=steps,
        shuffle=False,
        validation_data=valid,
        validation_batch_size=256,
        # The keeper comes before the schedule: it records the rate that the epoch was trained with.
        callbacks=[keras.callbacks.TerminateOnNaN(), keeper, schedule_callback(recipe, MONITOR)],
        verbose=0,
    )
    return keeper.finish(tail)


def _batches(
    train: Examples, n_classes: int, batch_size: int, n_views: int, seed: int, epochs: range
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches of `epochs`: each a new order and the next view, both fixed by the seed.

    They end with the last epoch because Keras reads ahead: from a source without end it would take
    batches of the epoch after, which a second fit would miss, and whose view nobody has prepared.
    """
    for epoch in epochs:
        order = np.random.default_rng((seed, epoch)).permutation(train.rows)
        for start in range(0, len(order), batch_size):
            # Sorted: a batch is a set to the optimizer, and the disk reads forward.
            rows = np.sort(order[start : start + batch_size])
            yield train.features.batch(epoch % n_views, rows), train.one_hot(rows, n_classes)


def _warm_up(tail: keras.Model, recipe: Recipe, batches: Iterator, steps: int) -> None:
    """Trains the head alone, so that a random head does not wreck the layers below it."""
    head = {"hidden", "dropout", "probabilities"}
    thawed = [x for x in tail.layers if x.trainable and x.name not in head]
    for layer in thawed:
        layer.trainable = False
    _compile(tail, recipe, WARMUP_LEARNING_RATE)
    tail.fit(batches, epochs=recipe.warmup_epochs, steps_per_epoch=steps, shuffle=False, verbose=0)
    for layer in thawed:
        layer.trainable = True


def _compile(tail: keras.Model, recipe: Recipe, learning_rate: float) -> None:
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=recipe.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    tail.compile(
        optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy", keras.metrics.CategoricalCrossentropy(name="cross_entropy")],
        jit_compile=False,  # measured 20 times slower on a processor
    )


class _KeepBestEpoch(keras.callbacks.Callback):
    """Collects each epoch's figures and keeps the weights of the best one."""

    def __init__(self, better: Callable[[dict, dict], bool], on_epoch: OnEpoch):
        super().__init__()
        self._better, self._on_epoch = better, on_epoch
        self._epochs: list[dict[str, float]] = []
        self._best_epoch, self._best_weights = 0, None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        seen = logs | {"learning_rate": float(self.model.optimizer.learning_rate)}
        figures = {ours: float(seen[theirs]) for theirs, ours in _NAMES.items()}
        if not all(math.isfinite(value) for value in figures.values()):
            raise NonFiniteLoss(f"in epoch {epoch + 1}: {figures}")
        self._epochs.append(figures)
        if self._best_epoch == 0 or self._better(figures, self._epochs[self._best_epoch - 1]):
            self._best_epoch, self._best_weights = epoch + 1, self.model.get_weights()
        self._on_epoch(epoch + 1, figures)

    def finish(self, model: keras.Model) -> History:
        """Puts the best weights into `model`."""
        if self._best_weights is None:
            raise NonFiniteLoss("in the first epoch")
        model.set_weights(self._best_weights)
        return History(self._epochs, self._best_epoch)
