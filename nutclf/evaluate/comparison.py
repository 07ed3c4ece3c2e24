"""Two models on the same images: which is right where the other is wrong, and is that luck?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from nutclf.evaluate.intervals import bootstrap_difference
from nutclf.evaluate.predictions import labels

SIGNIFICANCE = 0.05
"""Below this p-value a difference counts as more than luck."""


@dataclass(frozen=True)
class Comparison:
    """Model a against model b, image by image.

    Attributes:
      both, only_a, only_b, neither: images that both, only a, only b or neither call right.
      p_value: McNemar's exact two-sided test of `only_a` against `only_b`; 1.0 if both are 0.
      interval: paired 95% bootstrap interval of `difference`.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float
    interval: tuple[float, float]

    @property
    def n(self) -> int:
        """Images compared."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of b minus accuracy of a: positive when b is better."""
        return (self.only_b - self.only_a) / self.n

    def sentence(self, a: str = "A", b: str = "B") -> str:
        """The comparison in plain words, with `a` and `b` as the models' names."""
        low, high = self.interval
        right_a, right_b = self.both + self.only_a, self.both + self.only_b
        right = (
            f"On the same {self.n} images {b} is right on {right_b} ({right_b / self.n:.3f}) "
            f"and {a} on {right_a} ({right_a / self.n:.3f}): difference {self.difference:+.3f}, "
            f"95% interval {low:+.3f} to {high:+.3f}."
        )
        if not self.only_a + self.only_b:
            return f"{right} They are right on exactly the same images."
        apart = (
            f"Only {b} is right on {self.only_b}, only {a} on {self.only_a} "
            f"(McNemar's exact p = {self.p_value:.3g}): "
        )
        if self.p_value >= SIGNIFICANCE:
            return f"{right} {apart}these images do not tell them apart."
        return f"{right} {apart}{b if self.difference > 0 else a} is better by more than luck."


def compare(table_a: pd.DataFrame, table_b: pd.DataFrame, classes: Sequence[str]) -> Comparison:
    """Compares the predictions of a model and of its rival, joined on `path`, not on row order.

    Raises:
      ValueError: the tables hold different images, an image twice, or another truth for an image.
    """
    for name, paths in (("a", table_a["path"]), ("b", table_b["path"])):
        if (twice := paths[paths.duplicated()]).size:
            raise ValueError(f"table {name} holds {twice.iloc[0]!r} more than once")
    if alone := sorted(set(table_a["path"]) ^ set(table_b["path"])):
        raise ValueError(
            f"the tables hold different images: {len(alone)} are in one only, such as {alone[0]!r};"
            " compare predictions of the same split"
        )
    a, b = (table.sort_values("path", ignore_index=True) for table in (table_a, table_b))
    (true_a, pred_a), (true_b, pred_b) = labels(a, classes), labels(b, classes)
    if (true_a != true_b).any():
        path = a["path"][int(np.argmax(true_a != true_b))]
        raise ValueError(f"the tables give {path!r} different true classes")
    right_a, right_b = pred_a == true_a, pred_b == true_b
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    return Comparison(
        both=int(np.sum(right_a & right_b)),
        only_a=only_a,
        only_b=only_b,
        neither=int(np.sum(~right_a & ~right_b)),
        p_value=mcnemar(only_a, only_b),
        interval=bootstrap_difference(only_a, only_b, len(a)),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p-value of two discordant counts; 1.0 when both are 0.

    If neither model were better, each image that just one calls right would fall to either with
    probability 1/2 (Q. McNemar, Psychometrika 12 (1947) 153-157, in its binomial form).
    """
    discordant = only_a + only_b
    return float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0
