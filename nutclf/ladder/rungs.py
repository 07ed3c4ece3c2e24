"""The published ladder as data: what each rung trains, and what the publication prints of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from nutclf.config import OBJECTIVES, Augmentation, Recipe, SearchSpace, StudyConfig
from nutclf.evaluate.diagnosis import Claim
from nutclf.evaluate.intervals import Rate

HEADINGS = ("Rung", "What", "Figure", "Published", "Here", "95 % Wilson interval")

_NOTES = (
    "Intervals belong to the last value of a line. Train figures are running means over an epoch, "
    "with dropout and augmentation; precision and recall are means over classes, on untouched "
    "images. Fits keep the epoch of the lowest valid loss; rung 7 judges the one that rung 6 kept."
)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
      rung: number of the rung.
      title: what the rung is.
      figure: what was measured.
      published: as printed; empty where nothing is.
      here: the value here, with what belongs to it in words.
      rate: the value as a share of images, for its interval; None where it is no share.
    """

    rung: int
    title: str
    figure: str
    published: str
    here: str
    rate: Rate | None = None

    @property
    def interval(self) -> str:
        """The interval and the counts it rests on; empty where the value is no share."""
        if self.rate is None:
            return ""
        low, high = self.rate.interval
        return f"{low:.3f}-{high:.3f} ({self.rate.successes}/{self.rate.n})"

    def record(self) -> dict[str, object]:
        """The line as JSON takes it."""
        fields = {"rung": self.rung, "title": self.title, "figure": self.figure}
        fields |= {"published": self.published, "here": self.here}
        if self.rate is None:
            return fields
        low, high = self.rate.interval
        counts = {"right": self.rate.successes, "n": self.rate.n}
        return fields | counts | {"low": low, "high": high}


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table whose columns also line up as plain text.

    A rung's number and title stand in its first line only.
    """
    cells = [list(HEADINGS)]
    for before, row in zip((None, *rows), rows, strict=False):
        same = before is not None and before.rung == row.rung
        name = ["", ""] if same else [str(row.rung), row.title]
        cells.append([*name, row.figure, row.published or "–", row.here, row.interval])
    return aligned(cells)


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first of them headings, as a padded Markdown table."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*escaped, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in escaped]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def notes_on(backbone: str, kind: str) -> str:
    """What the table does not say by itself, in a paragraph below it.

    Args:
      backbone: that climbed.
      kind: of data, "photographs" or "drawn".
    """
    differs = [] if backbone == PUBLISHED_BACKBONE else [f"the network here is {backbone}"]
    if kind == "drawn":
        differs.append("the images here are drawn")
    if not differs:
        return _NOTES
    return f"Published figures are MobileNetV2's on photographs; {' and '.join(differs)}. {_NOTES}"


CLAIM = Claim(0.94, decimals=2, n=50)
"""The published accuracy, claimed on the 50 validation images, that rung 7's matrix is held to."""

NAMED_AS = {"coconut": "face powder", "pistachios": "cucumber"}
"""Rung 1: what the untouched ImageNet classifier said of a nut, one image each."""

SEED = 0
"""Everything random on the ladder follows from it."""

LEARNING_RATE = 1e-3
"""The publication names none. Keras' default for Adam gives its rung 2: train accuracy 0.32, 0.64,
0.72 here; with 3e-4 it would be 0.19, 0.43, 0.57."""

NO_AUGMENTATION = Augmentation(rotation=0, resize=1, zoom=0, horizontal_flip=False)
"""Every view is the image itself."""

PUBLISHED_BACKBONE, PUBLISHED_CLASSES = "mobilenetv2", 10
PUBLISHED_PARAMETERS = {0: 330_506, 4: 743_306}
"""Trainable parameters by unfrozen layers, of that backbone with that many classes."""

_PER_CLASS = 257  # the head's parameters that each class adds: 256 weights and a bias


@dataclass(frozen=True)
class Figure:
    """A figure of a rung, as published.

    Attributes:
      metric: its name in the run's records.
      label: its name for people.
      published: as printed; several are those of the rung's last epochs. Empty: not published.
      of: "train", "valid" or "" for a figure that is no share of a split's images.
    """

    metric: str
    label: str
    published: tuple[str, ...] = ()
    of: str = ""


@dataclass(frozen=True)
class Rung:
    """One fit of the ladder.

    Attributes:
      number: in the publication, 2 to 6.
      title: what is new in it.
      recipe: how it trains.
      augmented: whether it sees augmented views.
      figures: what is compared.
    """

    number: int
    title: str
    recipe: Recipe
    augmented: bool
    figures: tuple[Figure, ...]


def _accuracies(train: tuple[str, ...] = (), valid: tuple[str, ...] = ()) -> tuple[Figure, ...]:
    return (
        Figure("train_accuracy", "train accuracy", train, of="train"),
        Figure("valid_accuracy", "valid accuracy", valid, of="valid"),
    )


def _parameters(n_unfrozen: int) -> Figure:
    published = f"{PUBLISHED_PARAMETERS[n_unfrozen]:,}"
    return Figure("trainable_parameters", "trainable parameters", (published,))


def _recipe(n_unfrozen: int, epochs: int, lr_schedule: str) -> Recipe:
    return Recipe(
        n_unfrozen=n_unfrozen,
        epochs=epochs,
        lr_schedule=lr_schedule,
        learning_rate=LEARNING_RATE,
    )


RUNGS = (
    Rung(
        2,
        "frozen base, 3 epochs, no augmentation",
        _recipe(0, 3, "constant"),
        False,
        (_parameters(0), *_accuracies(("0.35", "0.63", "0.72"), ("0.76", "0.88", "0.88"))),
    ),
    Rung(
        3,
        "the same with augmentation",
        _recipe(0, 3, "constant"),
        True,
        _accuracies(),
    ),
    Rung(
        4,
        "last 4 base layers unfrozen",
        _recipe(4, 3, "constant"),
        True,
        (_parameters(4), *_accuracies()),
    ),
    Rung(
        5,
        "nine epochs",
        _recipe(4, 9, "constant"),
        True,
        _accuracies(("> 0.9",), ("> 0.9",)),
    ),
    Rung(
        6,
        "learning rate reduced on a plateau",
        _recipe(4, 9, "plateau"),
        True,
        (
            Figure("train_loss", "train loss", ("0.117",)),
            Figure("valid_loss", "valid loss", ("0.272",)),
            *_accuracies(("0.961",), ("0.90 (0.94 claimed)",)),
            # Valid has as many images of each class: recall there is accuracy, so a recall of 0.960
            # beside a valid accuracy of 0.90 was measured on the training images.
            Figure("train_macro_precision", "train precision, kept epoch", ("0.966",)),
            Figure("train_macro_recall", "train recall, kept epoch", ("0.960",)),
        ),
    ),
)
"""Rungs 2 to 6; dropout 0.5 and batches of 64, as published, are the defaults of `Recipe`."""


def ladder_config(backbone: str, augmented: bool) -> StudyConfig:
    """What all fits with, or without, augmentation share; nothing is searched."""
    return StudyConfig(
        name="ladder",
        backbone=backbone,
        space=SearchSpace(n_unfrozen=tuple(PUBLISHED_PARAMETERS)),
        objective=OBJECTIVES["valid"],
        augmentation=Augmentation() if augmented else NO_AUGMENTATION,
        n_views=max(rung.recipe.epochs for rung in RUNGS) if augmented else 1,
        seed=SEED,
    )


def check_parameters(backbone: str, n_classes: int, n_unfrozen: int, counted: int) -> None:
    """Holds the number of trainable parameters against the published one.

    Networks of which nothing was published pass.

    Raises:
      RuntimeError: this is not the published network.
    """
    if backbone != PUBLISHED_BACKBONE:
        return
    wanted = PUBLISHED_PARAMETERS[n_unfrozen] + _PER_CLASS * (n_classes - PUBLISHED_CLASSES)
    if counted != wanted:
        raise RuntimeError(
            f"{counted:,} parameters train with {n_unfrozen} layers unfrozen; the published "
            f"network has {wanted:,} for {n_classes} classes"
        )
