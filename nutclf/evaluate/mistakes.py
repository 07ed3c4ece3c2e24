"""Answers worth looking at: the mistakes that a model was surest of, and what it got right."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from nutclf.evaluate.predictions import classes_of, probabilities


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
