"""One image of what to look at: pictures whose label is doubtful, and pictures that come twice.

Drawn as `figures.py` draws, on a canvas of its own; callers import this file where they draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nutclf.evaluate import figures

COLUMNS = 6
_SIDE, _GAP, _MARGIN = 1.62, 0.24, 0.34  # inches, as are all lengths below
_HEADER, _HEADING, _CAPTION = 0.86, 0.32, 0.66
_LINE = 0.155
_APART = 0.16  # below a section
_TOUCH = 0.06  # between the two pictures of a pair
_WIDTH = 2 * _MARGIN + COLUMNS * _SIDE + (COLUMNS - 1) * _GAP
_ABOVE, _VERDICT, _BELOW = 26, 22, 29  # characters of a caption's lines that fit a picture


@dataclass(frozen=True)
class Tile:
    """A picture with its caption.

    Attributes:
      pixels: uint8 RGB [S, S, 3].
      above: quiet first line of the caption.
      verdict: the line that counts, in bold; "" for none.
      below: the last line, small.
      badge: on the picture's corner; "" for none.
      alarming: whether the verdict is drawn in the colour of warnings.
    """

    pixels: np.ndarray
    above: str
    verdict: str
    below: str
    badge: str = ""
    alarming: bool = True


@dataclass(frozen=True)
class Section:
    """Pictures under one heading.

    Attributes:
      heading: its title.
      empty: what stands there when there are no pictures.
      groups: pictures in rows from left to right; those of a group (a pair, or one alone) touch.
    """

    heading: str
    empty: str
    groups: Sequence[tuple[Tile, ...]]

    @property
    def a_row(self) -> int:
        """Groups side by side."""
        return COLUMNS // max((len(group) for group in self.groups), default=1)

    @property
    def height(self) -> float:
        """Inches."""
        rows = -(-len(self.groups) // self.a_row)
        return _HEADING + (rows * (_SIDE + _CAPTION) if rows else 0.4) + _APART


def contact_sheet(sections: Sequence[Section], title: str, detail: str) -> Figure:
    """All sections below each other, under a header of two lines."""
    sheet = _Sheet(_HEADER + sum(section.height for section in sections) + 0.1)
    sheet.text(_MARGIN, 0.22, title, fontsize=14, weight="bold", color=figures.INK)
    sheet.text(_MARGIN, 0.50, detail, fontsize=10, color=figures.MUTED)
    top = _HEADER
    for section in sections:
        sheet.section(top, section)
        top += section.height
    return sheet.figure


class _Sheet:
    """A figure on which things are placed in inches from its upper left corner."""

    def __init__(self, height: float):
        self.height = height
        self.figure = Figure(figsize=(_WIDTH, height), dpi=110, facecolor="white")
        FigureCanvasAgg(self.figure)

    def text(self, x: float, y: float, line: str, **look: object) -> None:
        self.figure.text(
            x / _WIDTH, 1 - y / self.height, line, ha="left", va="top", parse_math=False, **look
        )

    def section(self, top: float, section: Section) -> None:
        self.text(_MARGIN, top, section.heading, fontsize=11, weight="bold", color=figures.INK)
        if not section.groups:
            below = top + _HEADING - 0.04
            self.text(_MARGIN, below, section.empty, fontsize=9.5, color=figures.MUTED)
        for number, group in enumerate(section.groups):
            row, place = divmod(number, section.a_row)
            x = _MARGIN + place * len(group) * (_SIDE + _GAP)
            y = top + _HEADING + row * (_SIDE + _CAPTION)
            for step, tile in enumerate(group):
                self.tile(x + step * (_SIDE + _TOUCH), y, tile)

    def tile(self, x: float, y: float, tile: Tile) -> None:
        box = (x / _WIDTH, 1 - (y + _SIDE) / self.height, _SIDE / _WIDTH, _SIDE / self.height)
        ax = self.figure.add_axes(box)
        ax.imshow(tile.pixels, interpolation="antialiased")
        ax.set_axis_off()
        if tile.badge:
            paper = {"boxstyle": "square,pad=0.25", "facecolor": "white", "edgecolor": "none"}
            look = {"fontsize": 7.5, "color": figures.INK, "bbox": paper | {"alpha": 0.85}}
            self.text(x + 0.04, y + 0.04, tile.badge, **look)
        first, last = y + _SIDE + 0.06, y + _SIDE + 0.06 + 2 * _LINE
        colour = figures.BEST if tile.alarming else figures.INK
        self.text(x, first, _fit(tile.above, _ABOVE), fontsize=8.5, color=figures.MUTED)
        look = {"fontsize": 9, "weight": "bold", "color": colour}
        self.text(x, first + _LINE, _fit(tile.verdict, _VERDICT), **look)
        self.text(x, last, _fit(tile.below, _BELOW), fontsize=7.5, color=figures.MUTED)


def _fit(line: str, longest: int) -> str:
    """A line short enough for a caption; its middle gives way, as the ends of a path say most."""
    if len(line) <= longest:
        return line
    tail = longest * 2 // 3
    return f"{line[: longest - tail - 1]}…{line[-tail:]}"
