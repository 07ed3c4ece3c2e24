"""Answers worth looking at: the mistakes that a model was surest of, and what it got right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from nutclf.evaluate.contact_sheet import Section, Tile, contact_sheet
from nutclf.evaluate.predictions import classes_of, probabilities

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
_WARM = np.array((255, 96, 32))
_COVER = 0.7  # of the grey picture by the colour, where the heat is 1


def spotlight(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lays a coarse map over a picture.

    Args:
      pixels: uint8 RGB [S, S, 3].
      heat: float [h, w], 0 to 1; enlarged to the picture, smoothly.

    Returns:
      uint8 RGB [S, S, 3]: grey where the heat is 0. A colour is seen on dark pictures and on bright
      ones, which brightness is not.
    """
    height, width = pixels.shape[:2]
    coarse = Image.fromarray(np.asarray(heat, np.float32))
    fine = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    share = _COVER * np.clip(fine, 0, 1)[..., None]
    grey = (pixels @ np.array(_GREY))[..., None]
    return np.rint((1 - share) * grey + share * _WARM).astype(np.uint8)


@dataclass(frozen=True)
class Answer:
    """What a model said of one image.

    Attributes:
      path: of the image, relative to the data set's folder.
      y_true: its class.
      y_pred: the class that was answered.
      confidence: the probability of that class, [0, 1].
    """

    path: str
    y_true: str
    y_pred: str
    confidence: float

    @property
    def right(self) -> bool:
        """Whether the answer is the image's class."""
        return self.y_true == self.y_pred


def worst_mistakes(table: pd.DataFrame, n: int) -> list[Answer]:
    """The `n` wrong answers with the most confidence, the surest first.

    Args:
      table: from `nutclf.evaluate.predictions.prediction_table`.
      n: at most.
    """
    rows = _surest_first(table)
    return _answers(rows[rows["y_true"] != rows["y_pred"]].head(n))


def surest_hits(table: pd.DataFrame, n: int) -> list[Answer]:
    """At most `n` right answers, the surest first; each class has its turn before one comes again.

    Args:
      table: from `nutclf.evaluate.predictions.prediction_table`.
      n: at most.
    """
    rows = _surest_first(table)
    right = rows[rows["y_true"] == rows["y_pred"]]
    turn = right.groupby("y_true").cumcount().to_numpy()
    return _answers(right.iloc[np.argsort(turn, kind="stable")].head(n))


def _surest_first(table: pd.DataFrame) -> pd.DataFrame:
    """Equal confidences stand in the order of their paths: the same table, the same picture."""
    confidence = probabilities(table, classes_of(table)).max(axis=1, initial=0)
    rows = table[["path", "y_true", "y_pred"]].assign(confidence=confidence)
    return rows.sort_values(["confidence", "path"], ascending=[False, True])


def _answers(rows: pd.DataFrame) -> list[Answer]:
    return [Answer(*row) for row in rows.itertuples(index=False, name=None)]


def mistakes_sheet(shown: Sequence[tuple[Answer, np.ndarray]], title: str, detail: str) -> Figure:
    """The mistakes in their order, each with its picture.

    Args:
      shown: each answer with its picture, uint8 RGB [S, S, 3].
      title, detail: the header's two lines.
    """
    tiles = [(_tile(answer, pixels, number),) for number, (answer, pixels) in enumerate(shown, 1)]
    heading = "The surest wrong answers first"
    return contact_sheet([Section(heading, "There are none.", tiles)], title, detail)


def gradcam_sheet(
    shown: Sequence[tuple[Answer, np.ndarray, np.ndarray]], title: str, detail: str
) -> Figure:
    """Wrong and right answers, beside each picture what spoke for the answer.

    Args:
      shown: each answer with its picture, uint8 RGB [S, S, 3], and its map, float [h, w], 0 to 1.
      title, detail: the header's two lines.
    """
    wrong = [_pair(*each) for each in shown if not each[0].right]
    right = [_pair(*each) for each in shown if each[0].right]
    sections = [
        Section("Wrong answers, the surest first", "There are none.", wrong),
        Section("Right answers, the surest of each class", "There are none.", right),
    ]
    return contact_sheet(sections, title, detail)


def _pair(answer: Answer, pixels: np.ndarray, heat: np.ndarray) -> tuple[Tile, Tile]:
    said = f"what says {answer.y_pred}"
    lit = Tile(spotlight(pixels, heat), said, "", "", alarming=False)
    return _tile(answer, pixels), lit


def _tile(answer: Answer, pixels: np.ndarray, number: int | None = None) -> Tile:
    sure = f"{answer.confidence:.3f}"
    badge = sure if number is None else f"{number}   {sure}"
    is_, said = f"is {answer.y_true}", f"said {answer.y_pred}"
    return Tile(pixels, is_, said, answer.path, badge, alarming=not answer.right)
