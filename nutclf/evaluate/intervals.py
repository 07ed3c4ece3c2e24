"""How far a measured accuracy can be trusted, and whether one model really beats another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from nutclf.evaluate.predictions import labels

SIGNIFICANCE = 0.05
"""Below this p-value a difference counts as more than luck."""


@dataclass(frozen=True)
class Rate:
    """A share of n with its Wilson interval; prints as `0.960 (48/50, 95% 0.865-0.989)`."""

    successes: int
    n: int

    def __post_init__(self) -> None:
        if not (self.n >= 1 and 0 <= self.successes <= self.n):
            raise ValueError(f"{self.successes} of {self.n}: needs 0 <= successes <= n and n >= 1")

    @property
    def share(self) -> float:
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% score interval, within [0, 1] and sound at 0 and at n.

        Without continuity correction (E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212).
        """
        low, high = binomtest(self.successes, self.n).proportion_ci(method="wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.3f} ({self.successes}/{self.n}, 95% {low:.3f}-{high:.3f})"


def bootstrap_difference(only_a: int, only_b: int, n: int, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of accuracy(b) - accuracy(a), paired on the same n images."""
    counts = np.array([only_a, n - only_a - only_b, only_b])
    steps, counts = np.array([-1, 0, 1])[counts > 0], counts[counts > 0]
    # Images of one outcome are interchangeable: drawing how many there are of each is the same as
    # `scipy.stats.bootstrap(paired=True)`, without its table of n x draws indices.
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=10_000)
    low, high = np.quantile(drawn @ steps / n, [0.025, 0.975])
    return float(low), float(high)


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p-value of two discordant counts; 1.0 when both are 0."""
    discordant = only_a + only_b
    return float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0


@dataclass(frozen=True)
class Comparison:
    """Models a and b on the same images: how many both, one or neither calls right."""

    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float  # McNemar's
    interval: tuple[float, float]  # paired 95% bootstrap interval of `difference`

    @property
    def n(self) -> int:
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
    """Compares two models, joined on `path`; `ValueError` unless the images are the same."""
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
    outcome = np.bincount(2 * (pred_a == true_a) + (pred_b == true_b), minlength=4)
    neither, only_b, only_a, both = outcome.tolist()
    p_value, interval = mcnemar(only_a, only_b), bootstrap_difference(only_a, only_b, len(a))
    return Comparison(both, only_a, only_b, neither, p_value, interval)
