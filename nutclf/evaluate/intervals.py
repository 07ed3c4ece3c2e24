"""How far a measured share can be trusted: on 50 images, one image is two points."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a binomial share; stays within [0, 1], sound at 0 and at n.

    E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212; recommended for small n by Brown, Cai and
    DasGupta, Statistical Science 16 (2001) 101-133. Without continuity correction.

    Raises `ValueError` unless 0 <= successes <= n and n >= 1.
    """
    if not (n >= 1 and 0 <= successes <= n):
        raise ValueError(f"wilson({successes}, {n}): needs 0 <= successes <= n and n >= 1")
    low, high = binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return float(low), float(high)


@dataclass(frozen=True)
class Rate:
    """A share of n with its Wilson interval; prints as `0.960 (48/50, 95% 0.865-0.989)`."""

    successes: int
    n: int

    def __post_init__(self) -> None:
        wilson(self.successes, self.n)  # refuses impossible counts

    @property
    def share(self) -> float:
        """The measured share, [0, 1]."""
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end of the Wilson interval."""
        return wilson(self.successes, self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.3f} ({self.successes}/{self.n}, 95% {low:.3f}-{high:.3f})"


def bootstrap_difference(
    only_a: int, only_b: int, n: int, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """95% percentile interval of accuracy(b) - accuracy(a), both measured on the same n images.

    Images are redrawn in pairs (a's and b's result together), so what is hard for both cancels.
    `only_a` and `only_b` count the images that just one of the two calls right.
    """
    counts = np.array([only_a, n - only_a - only_b, only_b])
    steps, counts = np.array([-1, 0, 1])[counts > 0], counts[counts > 0]
    # Images of one outcome are interchangeable: drawing how many there are of each is the same as
    # `scipy.stats.bootstrap(paired=True)`, without its table of n x draws indices.
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=draws)
    low, high = np.quantile(drawn @ steps / n, [0.025, 0.975])
    return float(low), float(high)
