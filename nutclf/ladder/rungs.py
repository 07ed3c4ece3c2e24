"""The published ladder as data: what each rung trains, what was published of it, and the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nutclf.config import OBJECTIVES, Augmentation, Recipe, SearchSpace, StudyConfig
from nutclf.evaluate.intervals import Rate
from nutclf.search.driver import DRAWN_SIZE

SEED = 0
LEARNING_RATE = 1e-3
"""The publication names none. Keras' default for Adam gives its rung 2: train accuracy 0.32, 0.64,
0.72 here; with 3e-4 it would be 0.19, 0.43, 0.57."""

CLAIM = Rate(47, 50)
"""The published accuracy, 0.94 on 50 validation images, that rung 7's matrix is compared with."""

NO_AUGMENTATION = Augmentation(rotation=0, resize=1, zoom=0, horizontal_flip=False)
PUBLISHED_BACKBONE = "mobilenetv2"
PUBLISHED_PARAMETERS = {0: 330_506, 4: 743_306}
"""Trainable parameters by unfrozen layers, of that backbone with ten classes."""


@dataclass(frozen=True)
class Rung:
    """One fit of the ladder.

    Attributes:
      number, title: in the publication, 2 to 6, and what is new in it.
      recipe: how it trains; dropout 0.5 and batches of 64, as published, are defaults of `Recipe`.
      published: by metric of the run the printed figure, or ""; several are the last epochs'.
      augmented: whether it sees augmented views.
    """

    number: int
    title: str
    recipe: Recipe
    published: Mapping[str, str]
    augmented: bool = True


def _recipe(n_unfrozen: int, epochs: int, lr_schedule: str = "constant") -> Recipe:
    return Recipe(n_unfrozen, 0.5, epochs, lr_schedule, LEARNING_RATE)


_NO_FIGURES = {"train_accuracy": "", "valid_accuracy": ""}
RUNGS = (
    Rung(
        2,
        "frozen base, 3 epochs, no augmentation",
        _recipe(0, 3),
        {
            "trainable_parameters": "330,506",
            "train_accuracy": "0.35, 0.63, 0.72",
            "valid_accuracy": "0.76, 0.88, 0.88",
        },
        augmented=False,
    ),
    Rung(3, "the same with augmentation", _recipe(0, 3), _NO_FIGURES),
    Rung(
        4,
        "last 4 base layers unfrozen",
        _recipe(4, 3),
        {"trainable_parameters": "743,306"} | _NO_FIGURES,
    ),
    Rung(5, "nine epochs", _recipe(4, 9), dict.fromkeys(_NO_FIGURES, "> 0.9")),
    Rung(
        6,
        "learning rate reduced on a plateau",
        _recipe(4, 9, "plateau"),
        {
            "train_loss": "0.117",
            "valid_loss": "0.272",
            "train_accuracy": "0.961",
            "valid_accuracy": "0.90 (0.94 claimed)",
            # The valid split is balanced, so recall is accuracy there: a recall of 0.960 beside a
            # valid accuracy of 0.90 was measured on the training images.
            "train_macro_precision": "0.966",
            "train_macro_recall": "0.960",
        },
    ),
)


def ladder_config(backbone: str, kind: str, augmented: bool) -> StudyConfig:
    """What all fits on a kind of data with, or without, augmentation share."""
    return StudyConfig(
        name="ladder",
        backbone=backbone,
        image_size=DRAWN_SIZE if kind == "drawn" else None,
        space=SearchSpace(n_unfrozen=tuple(PUBLISHED_PARAMETERS)),
        objective=OBJECTIVES["valid"],
        augmentation=Augmentation() if augmented else NO_AUGMENTATION,
        n_views=max(rung.recipe.epochs for rung in RUNGS) if augmented else 1,
        seed=SEED,
    )


def check_parameters(backbone: str, n_classes: int, n_unfrozen: int, counted: int) -> None:
    """Raises RuntimeError where the published network trains another number of parameters."""
    # Each class adds 256 weights and a bias to the head.
    wanted = PUBLISHED_PARAMETERS[n_unfrozen] + 257 * (n_classes - 10)
    if backbone == PUBLISHED_BACKBONE and counted != wanted:
        raise RuntimeError(
            f"{counted:,} parameters train with {n_unfrozen} layers unfrozen; the published "
            f"network has {wanted:,} for {n_classes} classes"
        )


@dataclass(frozen=True)
class Row:
    """A line of the table: a figure as published ("" where it is not) and as it is here.

    `rate` is the value here as a share of images, for its interval; None where it is no share.
    """

    rung: int
    title: str
    figure: str
    published: str
    here: str
    rate: Rate | None = None

    def record(self) -> dict[str, object]:
        fields = {name: value for name, value in vars(self).items() if name != "rate"}
        if self.rate is None:
            return fields
        low, high = self.rate.interval
        return fields | {"right": self.rate.successes, "n": self.rate.n, "low": low, "high": high}


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table; a rung's number and title stand in its first line only."""
    cells, seen = [("Rung", "What", "Figure", "Published", "Here", "95 % Wilson interval")], None
    for row in rows:
        name, interval = ("", "") if row.rung == seen else (str(row.rung), row.title), ""
        if row.rate is not None:
            low, high = row.rate.interval
            interval = f"{low:.3f}-{high:.3f} ({row.rate.successes}/{row.rate.n})"
        cells.append((*name, row.figure, row.published or "–", row.here, interval))
        seen = row.rung
    return aligned(cells)


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first of them headings, as a padded Markdown table."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*escaped, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in escaped]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def notes_on(backbone: str, kind: str) -> str:
    """The paragraph below the table: how the figures were taken, and why they may differ."""
    differs = [] if backbone == PUBLISHED_BACKBONE else [f"the network here is {backbone}"]
    if kind == "drawn":
        differs.append(f"the images here are drawn, {DRAWN_SIZE} pixels wide")
    published = f"Published figures are MobileNetV2's on photographs; {' and '.join(differs)}. "
    return (published if differs else "") + (
        "Intervals belong to the last value of a line. Train figures are running means over an "
        "epoch, with dropout and augmentation; precision and recall are means over classes, on "
        "untouched images. Fits keep the epoch of the lowest valid loss; rung 7 judges the one "
        "that rung 6 kept."
    )
