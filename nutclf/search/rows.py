"""The ladder's table: published value, value here, and how far that can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass

from nutclf.evaluate.intervals import Rate
from nutclf.search.rungs import PUBLISHED_BACKBONE

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
