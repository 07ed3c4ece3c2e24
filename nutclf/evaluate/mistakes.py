"""Answers worth looking at: the mistakes that a model was surest of, and what it got right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from nutclf.evaluate.predictions import classes_of, probabilities

if TYPE_CHECKING:  # matplotlib is imported where something is drawn
    from matplotlib.figure import Figure

    from nutclf.evaluate.contact_sheet import Tile

_WARM = (255, 96, 32)
_COVER = 0.7  # of the grey picture by the colour, where the heat is 1


def spotlight(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture, uint8 RGB [S, S, 3], in grey, with the heat, float [h, w] in 0..1, as a colour.

    A colour is seen on dark pictures and on bright ones, which brightness is not.
    """
    grey = Image.fromarray(pixels).convert("L").convert("RGB")
    coarse = Image.fromarray(np.rint(255 * np.asarray(heat)).astype(np.uint8))
    mask = coarse.resize(grey.size, Image.Resampling.BICUBIC).point(lambda value: _COVER * value)
    return np.asarray(Image.composite(Image.new("RGB", grey.size, _WARM), grey, mask))


@dataclass(frozen=True)
class Answer:
    """What a model said of one image."""

    path: str  # relative to the data set's folder
    y_true: str
    y_pred: str
    confidence: float  # the probability of `y_pred`, [0, 1]

    @property
    def right(self) -> bool:
        """Whether the answer is the image's class."""
        return self.y_true == self.y_pred


def worst_mistakes(table: pd.DataFrame, n: int) -> list[Answer]:
    """At most `n` wrong answers of a table of predictions, the surest first."""
    return [answer for answer in _surest_first(table) if not answer.right][:n]


def surest_hits(table: pd.DataFrame, n: int) -> list[Answer]:
    """At most `n` right answers of a table of predictions: of each class the surest, then the next.

    Within one such round the surest comes first.
    """
    right = [answer for answer in _surest_first(table) if answer.right]
    kinds = pd.Series([answer.y_true for answer in right], dtype=object)
    turn = kinds.groupby(kinds).cumcount()
    return [right[i] for i in np.argsort(turn, kind="stable")[:n]]


def _surest_first(table: pd.DataFrame) -> list[Answer]:
    """Equal confidences in the order of their paths: the same table gives the same picture."""
    confidence = probabilities(table, classes_of(table)).max(axis=1, initial=0)
    rows = table[["path", "y_true", "y_pred"]].assign(confidence=confidence)
    rows = rows.sort_values(["confidence", "path"], ascending=[False, True])
    return [Answer(*row) for row in rows.itertuples(index=False, name=None)]


def mistakes_sheet(shown: Sequence[tuple[Answer, np.ndarray]], title: str, detail: str) -> Figure:
    """The mistakes in their order, each with its picture, uint8 RGB [S, S, 3]."""
    from nutclf.evaluate.contact_sheet import Section, contact_sheet

    tiles = [(_tile(answer, pixels, f"{i}   "),) for i, (answer, pixels) in enumerate(shown, 1)]
    section = Section("The surest wrong answers first", "There are none.", tiles)
    return contact_sheet([section], title, detail)


def gradcam_sheet(
    shown: Sequence[tuple[Answer, np.ndarray, np.ndarray]], title: str, detail: str
) -> Figure:
    """Wrong and right answers, each with its picture and beside it its heat (see `spotlight`)."""
    from nutclf.evaluate.contact_sheet import Section, Tile, contact_sheet

    pairs = {True: [], False: []}
    for answer, pixels, heat in shown:
        lit = Tile(spotlight(pixels, heat), f"what says {answer.y_pred}", "", "", alarming=False)
        pairs[answer.right].append((_tile(answer, pixels), lit))
    sections = [
        Section("Wrong answers, the surest first", "There are none.", pairs[False]),
        Section("Right answers, the surest of each class", "There are none.", pairs[True]),
    ]
    return contact_sheet(sections, title, detail)


def _tile(answer: Answer, pixels: np.ndarray, number: str = "") -> Tile:
    from nutclf.evaluate.contact_sheet import Tile

    badge = f"{number}{answer.confidence:.3f}"
    is_, said = f"is {answer.y_true}", f"said {answer.y_pred}"
    return Tile(pixels, is_, said, answer.path, badge, alarming=not answer.right)
