"""An accuracy as somebody printed it, and whether a count of right images can be that figure."""

from dataclasses import dataclass

from scipy.stats import fisher_exact

SIGNIFICANCE = 0.05
"""p-values below it count as evidence."""


@dataclass(frozen=True)
class Claim:
    """A printed accuracy.

    Attributes:
      accuracy: the printed figure, [0, 1].
      decimals: digits it is rounded to; 0.94 with 2 stands for 0.935 to 0.945.
      n: images of the split it was measured on, if that is another split than the matrix's.
    """

    accuracy: float
    decimals: int = 2
    n: int | None = None

    def __post_init__(self) -> None:
        """Refuses what no accuracy can be."""
        if not 0 <= self.accuracy <= 1 or self.decimals < 0 or (self.n is not None and self.n < 1):
            raise ValueError(f"{self!r} is impossible: accuracy [0, 1], decimals >= 0, n >= 1")

    def __str__(self) -> str:
        """The figure as printed, with the split where it is another one."""
        where = "" if self.n is None else f" on {self.n} other images"
        return f"{self.accuracy:.{self.decimals}f}{where}"

    def rounds_from(self, share: float) -> bool:
        """Whether `share`, rounded as the claim is, is the claimed figure (halves both ways)."""
        return abs(share - self.accuracy) <= 0.5 * 10.0**-self.decimals + 1e-9

    def fits(self, right: int, n: int) -> bool:
        """Whether `right` of `n` and the claim can both be true of one network.

        On the same split that is arithmetic; on another it is a test, as two samples differ.
        """
        if self.n is None:
            return self.rounds_from(right / n)
        return self.p_value(right, n) >= SIGNIFICANCE

    def p_value(self, right: int, n: int) -> float:
        """Fisher's exact two-sided p that two splits, `right` of `n` and the claim, share one rate.

        Of the counts that round to the claimed figure, the one kindest to it is taken.
        """
        m = self.n or n
        counts = {k for k in range(m + 1) if self.rounds_from(k / m)} | {round(self.accuracy * m)}
        tables = ([[right, n - right], [k, m - k]] for k in counts)
        return max(float(fisher_exact(table).pvalue) for table in tables)
