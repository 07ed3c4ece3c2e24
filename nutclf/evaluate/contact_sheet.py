"""One image of many: pictures with captions, in sections under a header.

Like `figures.py` it imports matplotlib: callers import this file where they draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from nutclf.evaluate import figures
from nutclf.evaluate.mistakes import Answer, spotlight

COLUMNS = 6
_SIDE, _GAP, _MARGIN = 1.62, 0.24, 0.34  # inches, as are all lengths below
_HEADER, _HEADING, _CAPTION, _LINE = 0.86, 0.32, 0.66, 0.155
_APART, _TOUCH = 0.16, 0.06  # below a section, and between the two pictures of a pair
_WIDTH = 2 * _MARGIN + COLUMNS * _SIDE + (COLUMNS - 1) * _GAP
_ABOVE, _VERDICT, _BELOW = 26, 22, 29  # characters of a caption's lines that fit a picture


@dataclass(frozen=True)
class Tile:
    """A picture with its caption of three lines."""

    pixels: np.ndarray  # uint8 RGB [S, S, 3]
    above: str  # quiet
    verdict: str  # in bold
    below: str  # small
    badge: str = ""  # on the picture's corner
    alarming: bool = True  # whether the verdict has the colour of warnings


@dataclass(frozen=True)
class Section:
    """Pictures under one heading."""

    heading: str
    empty: str  # written where there are no pictures
    groups: Sequence[tuple[Tile, ...]]  # pairs, whose pictures touch, or single pictures


def mistakes_sheet(shown: Sequence[tuple[Answer, np.ndarray]], title: str, detail: str) -> Figure:
    """The mistakes in their order, each with its picture, uint8 RGB [S, S, 3]."""
    tiles = [(_answer(answer, pixels, f"{i}   "),) for i, (answer, pixels) in enumerate(shown, 1)]
    section = Section("The surest wrong answers first", "There are none.", tiles)
    return contact_sheet([section], title, detail)


def gradcam_sheet(
    shown: Sequence[tuple[Answer, np.ndarray, np.ndarray]], title: str, detail: str
) -> Figure:
    """Wrong and right answers, each with its picture and beside it its heat (see `spotlight`)."""
    pairs = {True: [], False: []}
    for answer, pixels, heat in shown:
        lit = Tile(spotlight(pixels, heat), f"what says {answer.y_pred}", "", "")
        pairs[answer.right].append((_answer(answer, pixels), lit))
    wrong = Section("Wrong answers, the surest first", "There are none.", pairs[False])
    right = Section("Right answers, the surest of each class", "There are none.", pairs[True])
    return contact_sheet([wrong, right], title, detail)


def _answer(answer: Answer, pixels: np.ndarray, number: str = "") -> Tile:
    badge = f"{number}{answer.confidence:.3f}"
    is_, said = f"is {answer.y_true}", f"said {answer.y_pred}"
    return Tile(pixels, is_, said, answer.path, badge, alarming=not answer.right)


def contact_sheet(sections: Sequence[Section], title: str, detail: str) -> Figure:
    """All sections below each other, under a header of two lines."""
    a_row = [COLUMNS // max(map(len, each.groups), default=1) for each in sections]
    rows = [-(-len(each.groups) // n) for each, n in zip(sections, a_row, strict=True)]
    heights = [_HEADING + (n * (_SIDE + _CAPTION) if n else 0.4) + _APART for n in rows]
    figure = figures.blank(_WIDTH, _HEADER + sum(heights) + 0.1)
    _write(figure, _MARGIN, 0.22, title, size=14, weight="bold")
    _write(figure, _MARGIN, 0.50, detail, size=10, color=figures.MUTED)
    top = _HEADER
    for section, n, height in zip(sections, a_row, heights, strict=True):
        _write(figure, _MARGIN, top, section.heading, size=11, weight="bold")
        if not section.groups:
            below = top + _HEADING - 0.04
            _write(figure, _MARGIN, below, section.empty, size=9.5, color=figures.MUTED)
        for number, group in enumerate(section.groups):
            row, place = divmod(number, n)
            x = _MARGIN + place * len(group) * (_SIDE + _GAP)
            y = top + _HEADING + row * (_SIDE + _CAPTION)
            for step, tile in enumerate(group):
                _place(figure, x + step * (_SIDE + _TOUCH), y, tile)
        top += height
    return figure


def _write(figure: Figure, x: float, y: float, line: str, color=figures.INK, **look) -> None:
    """Text at x, y inches from the upper left corner."""
    width, height = figure.get_size_inches()
    place = {"ha": "left", "va": "top", "parse_math": False}
    figure.text(x / width, 1 - y / height, line, color=color, **place, **look)


def _place(figure: Figure, x: float, y: float, tile: Tile) -> None:
    width, height = figure.get_size_inches()
    ax = figure.add_axes((x / width, 1 - (y + _SIDE) / height, _SIDE / width, _SIDE / height))
    ax.imshow(tile.pixels, interpolation="antialiased")
    ax.set_axis_off()
    if tile.badge:
        box = {"boxstyle": "square,pad=0.25", "fc": "white", "ec": "none", "alpha": 0.85}
        _write(figure, x + 0.04, y + 0.04, tile.badge, size=7.5, bbox=box)
    warning = figures.BEST if tile.alarming else figures.INK
    lines = (
        (_fit(tile.above, _ABOVE), {"size": 8.5, "color": figures.MUTED}),
        (_fit(tile.verdict, _VERDICT), {"size": 9, "color": warning, "weight": "bold"}),
        (_fit(tile.below, _BELOW), {"size": 7.5, "color": figures.MUTED}),
    )
    for number, (line, look) in enumerate(lines):
        _write(figure, x, y + _SIDE + 0.06 + number * _LINE, line, **look)


def _fit(line: str, longest: int) -> str:
    """A line short enough for a caption; cut in the middle, as the ends of a path say most."""
    if len(line) <= longest:
        return line
    tail = longest * 2 // 3
    return f"{line[: longest - tail - 1]}…{line[-tail:]}"
