"""Every default of a study: frozen dataclasses, checked when made, logged whole.

An experiment file builds a `StudyConfig`; nobody reads one with a fallback. An impossible value
fails here, before any work.
"""

from dataclasses import dataclass, replace
from itertools import product
from math import inf

from nutclf.errors import UserError

SCHEDULES = ("constant", "cosine", "step", "plateau")
BOTH_LINEAR = "both linear models"
PROBES = ("logistic regression", "discriminant analysis", BOTH_LINEAR)
DIRECTIONS = ("maximize", "minimize")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")  # Keras' dtype policies
SPLITS = ("train", "valid", "test")
RANGES = ("dropout_rate", "epochs", "learning_rate")
"""What a space searches between two ends; all else is a choice."""

COVERAGE = 0.95  # share of held-out images that a model answers; of the others it is "unsure"
WARMUP_LEARNING_RATE = 1e-3  # of the head alone, Adam's default
# "plateau": after `patience` epochs without `min_delta` of gain in valid loss, the rate is halved.
PLATEAU = {"factor": 0.5, "patience": 1, "min_delta": 1e-3}
# "step": the rate is multiplied at the end of each stage; stages are equally long.
STEP = {"factor": 0.1, "stages": 3}


def _require(condition: bool, what: str, given: object, allowed: str) -> None:
    if not condition:
        raise UserError(f"{what} is {given!r}; allowed: {allowed}.")


def _require_one_of(what: str, given: object, allowed: tuple[str, ...]) -> None:
    _require(given in allowed, what, given, ", ".join(allowed))


@dataclass(frozen=True)
class Recipe:
    """How one network is fine-tuned. The defaults are the published recipe.

    Attributes:
      n_unfrozen: layers of the backbone that train, counted from its output end; 0 trains the head.
      dropout_rate: share of the head's 256 hidden units dropped in training, [0, 1).
      epochs: passes over the training split after the warm-up.
      lr_schedule: one of `SCHEDULES`.
      learning_rate: base learning rate of Adam, > 0. The publication names none; with 3e-4 the
        valid loss after 9 epochs is the published one (0.28 here, 0.27 there).
      batch_size: images a step.
      warmup_epochs: passes that train the head alone before anything is unfrozen.
    """

    n_unfrozen: int = 4
    dropout_rate: float = 0.5
    epochs: int = 9
    lr_schedule: str = "plateau"
    learning_rate: float = 3e-4
    batch_size: int = 64
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        _require_one_of("lr_schedule", self.lr_schedule, SCHEDULES)
        _require(0 < self.learning_rate < inf, "learning_rate", self.learning_rate, "above 0")
        _require(0 <= self.dropout_rate < 1, "dropout_rate", self.dropout_rate, "0 to below 1")
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("n_unfrozen", 0),
            ("warmup_epochs", 0),
        ):
            value = getattr(self, name)
            whole = isinstance(value, int) and value >= least
            _require(whole, name, value, f"a whole number, {least} or more")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image; the published list: rotation, resize, crop, flip, zoom.

    Attributes:
      rotation, zoom: the largest turn either way, in turns, and zoom, as a share of the side.
      resize: the image is enlarged by this factor before the crop back to its size, >= 1.
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
class View:
    """A fixed view of an image at test time, of the centred square that the network takes.

    Attributes:
      scale: share of the side that is seen, above 0.5: the centre is cropped and enlarged to the
        whole; above 1, to 2, the square is made smaller on a ground of its border's colour.
      mirrored: left and right change places.
    """

    scale: float = 1.0
    mirrored: bool = False

    def __post_init__(self) -> None:
        allowed = "a crop in (0.5, 1], or padding in (1, 2]"
        _require(0.5 < self.scale <= 2, "scale of a test-time view", self.scale, allowed)

    def __str__(self) -> str:
        return f"{self.scale:g}" + (" mirrored" if self.mirrored else "")


WHOLE = View()
"""The untouched image."""


def _mirrored(*scales: float) -> tuple[View, ...]:
    return tuple(View(scale, mirrored) for scale in scales for mirrored in (False, True))


TTA = (
    (WHOLE,),
    (View(0.875),),
    (View(0.78),),
    (View(0.875), View(0.78)),
    _mirrored(0.875, 0.78),
    _mirrored(1.0, 0.875, 0.78, 0.67, 0.55),
)
"""Sets of views whose answers may be averaged, the cheapest first: an answer costs as many passes.

ImageNet networks are evaluated on the centre 0.875 of an image (224 of 256 pixels).
"""


@dataclass(frozen=True)
class Ensemble:
    """How a model answers: the mean over its test-time views, blended with that of a probe.

    Attributes:
      views: whose probabilities are averaged.
      probe: name of the linear model on the frozen network that answers too; "" for none.
      weight: of the probe's probabilities, [0, 1]; the network has the rest.
    """

    views: tuple[View, ...] = (WHOLE,)
    probe: str = ""
    weight: float = 0.0

    def __str__(self) -> str:
        blend = f", {self.weight:g} {self.probe}" if self.probe else ""
        return " + ".join(map(str, self.views)) + blend


PLAIN = Ensemble()
"""The untouched image alone, and no probe."""


@dataclass(frozen=True)
class Objective:
    """What a study optimises: one metric of a trial's run, taken at the best epoch."""

    metric: str
    direction: str

    def __post_init__(self) -> None:
        _require_one_of("direction", self.direction, DIRECTIONS)

    def better_than(self, a: float, b: float) -> bool:
        """Whether value `a` beats value `b`; equal values do not."""
        return a > b if self.direction == "maximize" else a < b

    @property
    def cross_validated(self) -> bool:
        """Whether trials are judged on held-out folds of the training split."""
        return self.metric.startswith("cv_")

    @property
    def judged_on(self) -> str:
        """The split whose predictions make the value: "cv" or "valid"."""
        return "cv" if self.cross_validated else "valid"

    @property
    def by_epoch(self) -> str:
        """The metric of an epoch that says most of a fit."""
        return self.metric.removeprefix("best_") if not self.cross_validated else "valid_loss"

    def beats(self, a: dict[str, float], b: dict[str, float]) -> bool:
        """Whether epoch `a` is kept instead of the earlier epoch `b`.

        By this metric, then by the lower valid loss: with 50 validation images accuracies are often
        equal. Under cross-validation the last epoch is always kept: how many there are is searched,
        and 50 images pick an epoch by luck (0.785 instead of 0.845 right in one fold measured).
        """
        if self.cross_validated:
            return True
        if a[self.by_epoch] != b[self.by_epoch]:
            return self.better_than(a[self.by_epoch], b[self.by_epoch])
        return a["valid_loss"] < b["valid_loss"]


OBJECTIVES = {
    "cv": Objective("cv_accuracy", "maximize"),
    "valid": Objective("best_valid_loss", "minimize"),
}
"""The two protocols by name: folds of the training split, and the published validation split."""


@dataclass(frozen=True)
class SearchSpace:
    """What a study searches: fields of `Recipe`.

    Those in `RANGES` are pairs, both ends included (epochs are integers, the learning rate is drawn
    log-uniformly); the others are choices, and a single choice is not searched.
    """

    n_unfrozen: tuple[int, ...]
    dropout_rate: tuple[float, float] = (0.1, 0.7)
    epochs: tuple[int, int] = (4, 12)
    lr_schedule: tuple[str, ...] = SCHEDULES
    learning_rate: tuple[float, float] = (1e-4, 3e-3)
    batch_size: tuple[int, ...] = (64,)
    warmup_epochs: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if name in RANGES:
                in_order = len(values) == 2 and values[0] <= values[1]
                _require(in_order, name, values, "a range (low, high) with low <= high")
            else:
                distinct = len(values) == len(set(values)) > 0
                _require(distinct, name, values, "one or more different choices")
            for value in values:
                replace(Recipe(), **{name: value})  # Recipe knows what is allowed

    @property
    def longest_training(self) -> int:
        """Epochs of the longest training that may be drawn, warm-up included."""
        return self.epochs[1] + max(self.warmup_epochs)


@dataclass(frozen=True)
class StudyConfig:
    """One study: what is searched, on which network, for what, from which seed.

    Attributes:
      name: of the study, in Optuna and MLflow.
      backbone: a name known to `nutclf.model.backbones`.
      space, objective: what is searched, and what for.
      baseline: trial 0, always; the published recipe unless said otherwise.
      augmentation: how views are drawn.
      n_views: augmented views of each training image; None is one for each epoch of the longest
        training. Epoch e sees view e mod n_views.
      n_folds: of the cross-validation.
      seed: everything random in the study follows from it.
      feature_dtype: how features are kept on disk: "float32", with which a cached trial is the
        uncached one, or "float16": augmented views take half of the disk, and losses of deep fits
        change by up to 0.2.
      precision: what a tail computes in while it trains, one of `PRECISIONS`; None is
        "mixed_float16" on a GPU and "float32" elsewhere. Its weights, and what answers, are
        float32 in any case.
      image_size: side of the network's input, pixels; None is the network's own.
      tta: sets of test-time views. Under cross-validation each trial takes the set, and the blend,
        that do best on the images held out; the valid split judges the untouched image alone.
      probes: names of `PROBES` that are fitted before all trials.
      blend: weights that a probe's answer may have beside a trial's, each in (0, 1).
    """

    name: str
    backbone: str
    space: SearchSpace
    objective: Objective = OBJECTIVES["cv"]
    baseline: Recipe = Recipe()
    augmentation: Augmentation = Augmentation()
    n_views: int | None = None
    n_folds: int = 5
    seed: int = 0
    feature_dtype: str = "float32"
    precision: str | None = None
    image_size: int | None = None
    tta: tuple[tuple[View, ...], ...] = TTA
    probes: tuple[str, ...] = PROBES
    blend: tuple[float, ...] = (0.3, 0.5)

    def __post_init__(self) -> None:
        for views in self.tta:
            said = ", ".join(map(str, views))
            _require(0 < len(views) == len(set(views)), "tta", said, "views that do not repeat")
        _require(len(self.tta) > 0, "tta", self.tta, "one or more sets of views")
        for probe in self.probes:
            _require_one_of("probe", probe, PROBES)
        for weight in self.blend:
            _require(0 < weight < 1, "blend", weight, "weights above 0 and below 1")
        _require(bool(self.probes) or not self.blend, "blend", self.blend, "none without probes")
        _require(self.n_folds >= 2, "n_folds", self.n_folds, "2 or more")
        _require_one_of("feature_dtype", self.feature_dtype, ("float16", "float32"))
        if self.precision is not None:
            _require_one_of("precision", self.precision, PRECISIONS)
        n_views, size = self.n_views, self.image_size
        _require(n_views is None or n_views >= 1, "n_views", n_views, "1 or more, or None")
        _require(size is None or size >= 32, "image_size", size, "32 pixels or more, or None")

    @property
    def views(self) -> int:
        """How many augmented views of an image exist."""
        return self.n_views or self.space.longest_training

    @property
    def test_views(self) -> tuple[View, ...]:
        """The views that images are judged by, the untouched one first."""
        if not self.objective.cross_validated:
            return (WHOLE,)
        return tuple(dict.fromkeys([WHOLE, *(view for views in self.tta for view in views)]))

    @property
    def ensembles(self) -> list[Ensemble]:
        """Ways to answer that a trial chooses from, the cheapest first."""
        if not self.objective.cross_validated:
            return [PLAIN]
        blends = [("", 0.0), *product(self.probes, self.blend)]
        return [Ensemble(views, *blend) for views in self.tta for blend in blends]
