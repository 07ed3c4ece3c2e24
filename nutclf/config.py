"""Every default of the project: frozen dataclasses, checked when made, logged whole.

An experiment file builds a `StudyConfig`; nothing else in the package holds a default of its own,
and nobody reads a config with a fallback. An impossible value fails here, before any work.
"""

import dataclasses
from dataclasses import dataclass, field

from nutclf.errors import UserError

SCHEDULES = ("constant", "cosine", "step", "plateau")
DIRECTIONS = ("maximize", "minimize")
SPLITS = ("train", "valid", "test")


def _require(condition: bool, what: str, given: object, allowed: str) -> None:
    if not condition:
        raise UserError(f"{what} is {given!r}; allowed: {allowed}.")


@dataclass(frozen=True)
class Recipe:
    """How one network is fine-tuned. The defaults are the published recipe.

    Attributes:
      n_unfrozen: layers of the backbone that train, counted from its output end; 0 trains the head.
      dropout_rate: share of the head's 256 hidden units dropped in training, [0, 1).
      epochs: passes over the training split after the warm-up.
      lr_schedule: one of `SCHEDULES`.
      learning_rate: base learning rate of Adam, > 0.
      batch_size: images a step.
      warmup_epochs: passes that train the head alone before anything is unfrozen.
      label_smoothing: probability mass spread evenly over all classes, [0, 1).
      weight_decay: AdamW's decoupled decay of kernels, as a share a step of the learning rate.
    """

    n_unfrozen: int = 4
    dropout_rate: float = 0.5
    epochs: int = 9
    lr_schedule: str = "plateau"
    learning_rate: float = 1e-3
    batch_size: int = 64
    warmup_epochs: int = 0
    label_smoothing: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require(self.n_unfrozen >= 0, "n_unfrozen", self.n_unfrozen, "0 or more layers")
        _require(0 <= self.dropout_rate < 1, "dropout_rate", self.dropout_rate, "0 to below 1")
        _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _require(
            self.lr_schedule in SCHEDULES, "lr_schedule", self.lr_schedule, ", ".join(SCHEDULES)
        )
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "0 or more")
        _require(
            0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "0 to below 1"
        )
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image; the published list: rotation, resize, crop, flip, zoom.

    Attributes:
      rotation: largest turn either way, as a share of a full turn.
      resize: the image is enlarged by this factor before the crop back to its size, >= 1.
      zoom: largest zoom in or out, as a share of the side.
      horizontal_flip: mirror every second image.
    """

    rotation: float = 0.1
    resize: float = 1.15
    zoom: float = 0.15
    horizontal_flip: bool = True

    def __post_init__(self) -> None:
        _require(0 <= self.rotation <= 1, "rotation", self.rotation, "0 to 1 turns")
        _require(self.resize >= 1, "resize", self.resize, "1 or more")
        _require(0 <= self.zoom < 1, "zoom", self.zoom, "0 to below 1")


@dataclass(frozen=True)
class Objective:
    """What a study optimises: one metric of a trial's run, taken at the best epoch."""

    metric: str
    direction: str

    def __post_init__(self) -> None:
        _require(
            self.direction in DIRECTIONS, "direction", self.direction, " or ".join(DIRECTIONS)
        )

    def better_than(self, a: float, b: float) -> bool:
        """Whether value `a` beats value `b`; equal values do not."""
        return a > b if self.direction == "maximize" else a < b
