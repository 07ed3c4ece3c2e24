"""Answers worth looking at: the mistakes that a model was surest of, and what it got right."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from nutclf.evaluate.predictions import classes_of, probabilities

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
        return self.y_true == self.y_pred


def worst_mistakes(table: pd.DataFrame, n: int) -> list[Answer]:
    """At most `n` wrong answers of a table of predictions, the surest first."""
    return [answer for answer in _surest_first(table) if not answer.right][:n]


def surest_hits(table: pd.DataFrame, n: int) -> list[Answer]:
    """At most `n` right answers: the surest of each class, then the next of each, and so on."""
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
