"""How far a measured share can be trusted: on 50 images, one image is two points."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a binomial share; stays within [0, 1], sound at 0 and at n.

    E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212; recommended for small n by Brown, Cai and
    DasGupta, Statistical Science 16 (2001) 101-133. Without continuity correction.

    Args:
      successes: 0 to n.
      n: 1 or more.
      level: coverage, within (0, 1).

    Raises:
      ValueError: an argument is outside its range.
    """
    if not (n >= 1 and 0 <= successes <= n and 0 < level < 1):
        raise ValueError(
            f"wilson({successes}, {n}, {level}): needs 0 <= successes <= n, n >= 1, 0 < level < 1"
        )
    z2 = norm.ppf((1 + level) / 2) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    # Exactly 0 and 1 at the ends in the formula; rounding would leave 1e-17 and 0.9999999999999999.
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == n else float(centre + half)
    return low, high


@dataclass(frozen=True)
class Rate:
    """A share of n with its Wilson interval; prints as `0.960 (48/50, 95% 0.865-0.989)`."""

    successes: int
    n: int
    level: float = 0.95

    def __post_init__(self) -> None:
        """Refuses impossible counts, by the same rule as `wilson`."""
        wilson(self.successes, self.n, self.level)

    @property
    def share(self) -> float:
        """The measured share, [0, 1]."""
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end of the Wilson interval."""
        return wilson(self.successes, self.n, self.level)

    def __str__(self) -> str:
        """One figure that always shows what it rests on."""
        low, high = self.interval
        counts = f"{self.successes}/{self.n}, {100 * self.level:g}% {low:.3f}-{high:.3f}"
        return f"{self.share:.3f} ({counts})"


def bootstrap_difference(
    correct_a: Sequence[bool],
    correct_b: Sequence[bool],
    groups: Sequence | None = None,
    n: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """95% percentile interval of accuracy(b) - accuracy(a), both judged on the same images.

    Images are redrawn in pairs (b's and a's verdict together), so what is hard for both cancels.

    Args:
      correct_a: whether a is right on each image, bool [N].
      correct_b: the same of b, in the same order.
      groups: one group id an image, [N]: images of a group (near-duplicates, one photographer) are
        redrawn together. None: every image stands for itself.
      n: bootstrap samples.
      seed: of the draws; the same arguments give the same interval.

    Raises:
      ValueError: lengths differ, there are no images, or the verdicts are not booleans.
    """
    a, b = _verdicts(correct_a), _verdicts(correct_b)
    group = np.arange(len(a)) if groups is None else np.asarray(groups)
    if not len(a) == len(b) == len(group) or not len(a):
        raise ValueError(f"lengths are {len(a)}, {len(b)}, {len(group)}; equal, 1 or more, needed")
    ids = pd.factorize(group)[0]
    sums = np.bincount(ids, weights=b.astype(int) - a.astype(int))
    # Groups of equal sum and size are interchangeable: drawing how many of each kind is the same
    # bootstrap as drawing N indices n times, in a thousandth of the memory.
    kinds, counts = np.unique(
        np.stack([sums, np.bincount(ids)], axis=1), axis=0, return_counts=True
    )
    drawn = np.random.default_rng(seed).multinomial(len(sums), counts / counts.sum(), size=n)
    low, high = np.quantile((drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1]), [0.025, 0.975])
    return float(low), float(high)


def _verdicts(correct: Sequence[bool]) -> np.ndarray:
    verdicts = np.asarray(correct)
    if verdicts.ndim != 1 or (verdicts.size and verdicts.dtype != bool):
        raise ValueError(f"verdicts are {verdicts.dtype} {list(verdicts.shape)}; bool [N] needed")
    return verdicts
