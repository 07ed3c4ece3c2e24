"""Reads any confusion matrix against the accuracy claimed for it, and says what is wrong.

The published experiment claims 0.94 and shows a test matrix close to random; this file tells the
possible reasons apart: another figure, renamed classes, labels of other images, broken predictions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom, fisher_exact, random_table

from nutclf.evaluate.metrics import as_counts

EXACT_BELOW = 8
"""Matrices of fewer images are compared with every shuffle (at most 5040), not with a sample."""


def shuffled_matrices(
    counts: np.ndarray, draws: int = 9999, seed: int = 0
) -> tuple[np.ndarray, bool]:
    """Matrices int [S, C, C] with the margins of `counts`, and whether they are all there are.

    Args:
      counts: confusion matrix, int [C, C].
      draws: S, where sampled; W. M. Patefield's or J. M. Boyett's algorithm, as SciPy chooses.
      seed: of the sample.
    """
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    if rows.sum() >= EXACT_BELOW:
        return random_table(rows, columns, seed=seed).rvs(draws).astype(np.int64), False
    y_true, y_pred = (np.repeat(np.arange(len(counts)), margin) for margin in (rows, columns))
    orders = np.array(list(permutations(y_pred)))
    every = np.zeros((len(orders), *counts.shape), dtype=np.int64)
    np.add.at(every, (np.arange(len(orders))[:, None], y_true[None, :], orders), 1)
    return every, True


def p_at_least(observed: float, shuffled: np.ndarray, exact: bool) -> float:
    """Share of shuffles whose statistic [S] reaches the observed one.

    A sample counts what was seen as one more shuffle, (k + 1) / (S + 1), so that no finite sample
    claims p = 0 (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39).
    """
    reached = int(np.sum(shuffled >= observed - 1e-9))  # sums of the same terms differ in rounding
    return reached / len(shuffled) if exact else (reached + 1) / (len(shuffled) + 1)


def association(matrices: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Pearson's chi-square / n + 1 of matrices [..., C, C] with the given margins, float [...]."""
    expected = np.outer(rows, columns)
    return (matrices**2 / np.where(expected > 0, expected, 1)).sum(axis=(-2, -1))


def best_renaming(counts: np.ndarray) -> tuple[int, ...]:
    """The one-to-one renaming of predicted classes that calls most images right.

    Returns:
      For each true class i the predicted class that stands for it; i itself wherever moving it
      gains nothing.
    """
    # The unit on the diagonal decides ties for "no move", and can never outweigh an image.
    gain = counts * (len(counts) + 1) + np.eye(len(counts), dtype=np.int64)
    return tuple(int(column) for column in linear_sum_assignment(gain, maximize=True)[1])


def renamed_right(counts: np.ndarray, renaming: tuple[int, ...]) -> int:
    """Images that are right once predicted classes are renamed."""
    return int(counts[np.arange(len(counts)), list(renaming)].sum())


def renaming_gain_p(counts: np.ndarray, renaming: tuple[int, ...]) -> float:
    """Upper bound on how often luck favours some renaming of as many classes by this much.

    Each image of a moved class that is right under exactly one of "as named" and "renamed" is a
    coin toss if neither is truer: a sign test. The renaming was picked as the best of many, so its
    p-value is multiplied by how many there are, choose(C, m) times the derangements of m (Boole).
    """
    moved = [i for i, j in enumerate(renaming) if i != j]
    renamed = sum(int(counts[i, renaming[i]]) for i in moved)
    named = sum(int(counts[i, i]) for i in moved)
    m = len(moved)
    derangements = sum((-1) ** k * math.factorial(m) // math.factorial(k) for k in range(m + 1))
    one = float(binom.sf(renamed - 1, renamed + named, 0.5))
    return min(1.0, one * math.comb(len(counts), m) * derangements)


def p_of_all_right(counts: np.ndarray) -> float:
    """How often a shuffle of perfect predictions is perfect again: prod(r_i!) / n!, r true counts.

    Where this is not small, no result on these images can be told from guessing.
    """
    rows = counts.sum(axis=1)
    log = sum(math.lgamma(r + 1) for r in rows) - math.lgamma(rows.sum() + 1)
    return math.exp(log)


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


@dataclass(frozen=True)
class Diagnosis:
    """What a confusion matrix says of itself.

    Attributes:
      verdict: `permuted` (skilled once classes are renamed), `chance` (cannot be told from
        guessing), `contradicts` (skilled, but not as claimed) or `consistent`.
      agrees: whether the matrix and the claim can both be true.
      right: images on the diagonal, of `n`.
      renaming: for each true class the predicted class that stands for it, by best assignment.
      renamed_right: images right once so renamed.
      p_renaming: the larger p-value of "skilled once renamed" and "better than as named".
      p_accuracy: how often guesses with the same margins are right as often.
      p_independence: how often they tie predicted to true classes as closely.
      repairable: images that these very predictions could have right if paired with other images:
        the sum of min(row total, column total) over classes.
      classes: class names.
      claim: what was claimed.
    """

    verdict: str
    agrees: bool
    right: int
    n: int
    renaming: tuple[int, ...]
    renamed_right: int
    p_renaming: float
    p_accuracy: float
    p_independence: float
    repairable: int
    classes: tuple[str, ...]
    claim: Claim

    @property
    def accuracy(self) -> float:
        """Share on the diagonal."""
        return self.right / self.n

    def sentence(self) -> str:
        """The diagnosis in plain words: the figures, what they mean, and where to look."""
        verb = "agrees with" if self.agrees else "contradicts"
        facts = (
            f"The matrix has {self.right} of {self.n} images right ({self.accuracy:.3f}), "
            f"which {verb} the claimed {self.claim}."
        )
        meaning = {"permuted": self._renaming, "chance": self._guessing}.get(self.verdict)
        return f"{facts} {meaning()}" if meaning else facts

    def _renaming(self) -> str:
        names = self.classes
        moves = [f"{names[i]} appears as {names[j]}" for i, j in enumerate(self.renaming) if i != j]
        return (
            f"With classes renamed it is {self.renamed_right / self.n:.3f} "
            f"(p = {self.p_renaming:.2g}): {', '.join(moves)}. "
            "The class list was read in another order than the network's."
        )

    def _guessing(self) -> str:
        guess = (
            f"It cannot be told from guessing (accuracy p = {self.p_accuracy:.2g}, "
            f"association p = {self.p_independence:.2g})."
        )
        if self.agrees:
            return guess
        limit = self.repairable / self.n
        if limit >= self.claim.accuracy or self.claim.fits(self.repairable, self.n):
            return (
                f"{guess} Yet the same predictions, paired with other images, could reach "
                f"{limit:.3f}: they were likely counted against labels in another order, as a "
                "shuffled loader gives them."
            )
        return (
            f"{guess} However they are paired with the images, these predictions reach {limit:.3f} "
            "at most, so label order alone cannot explain it: look for pixels scaled otherwise "
            "than in training, or for other weights."
        )


def diagnose(
    matrix: np.ndarray,
    claim: Claim,
    classes: Sequence[str] | None = None,
    draws: int = 9999,
    seed: int = 0,
) -> Diagnosis:
    """Holds a confusion matrix against a claim, against guessing and against renamed classes.

    Args:
      matrix: counts [C, C], rows true, columns predicted.
      claim: the accuracy said to belong to it, or to the same network on other images.
      classes: C names for the sentence; None: "class 0", "class 1", ...
      draws: shuffles behind the p-values (every shuffle where n < 8).
      seed: of the shuffles.

    Raises:
      ValueError: `matrix` holds no counts, or `classes` does not fit it.
    """
    counts = as_counts(matrix, None if classes is None else len(classes))
    right, n = int(np.trace(counts)), int(counts.sum())
    renaming = best_renaming(counts)
    p_renaming, p_accuracy, p_independence = _p_values(counts, renaming, draws, seed)
    agrees = claim.fits(right, n)
    # Two tests look for skill, so each must pass at half the level (Bonferroni).
    guessing = 2 * min(p_accuracy, p_independence) >= SIGNIFICANCE
    if p_renaming < SIGNIFICANCE:
        verdict = "permuted"
    elif guessing and p_of_all_right(counts) < SIGNIFICANCE:
        verdict = "chance"
    else:
        verdict = "consistent" if agrees else "contradicts"
    return Diagnosis(
        verdict=verdict,
        agrees=agrees,
        right=right,
        n=n,
        renaming=renaming,
        renamed_right=renamed_right(counts, renaming),
        p_renaming=p_renaming,
        p_accuracy=p_accuracy,
        p_independence=p_independence,
        repairable=int(np.minimum(counts.sum(axis=0), counts.sum(axis=1)).sum()),
        classes=tuple(classes or (f"class {i}" for i in range(len(counts)))),
        claim=claim,
    )


def _p_values(
    counts: np.ndarray, renaming: tuple[int, ...], draws: int, seed: int
) -> tuple[float, float, float]:
    """p-values of renaming, accuracy and independence; 1.0 for a renaming that moves nothing."""
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    shuffled, exact = shuffled_matrices(counts, draws, seed)
    diagonals = np.trace(shuffled, axis1=1, axis2=2)
    p_accuracy = p_at_least(np.trace(counts), diagonals, exact)
    seen = association(counts, rows, columns)
    p_independence = p_at_least(seen, association(shuffled, rows, columns), exact)
    if renaming == tuple(range(len(counts))):
        return 1.0, p_accuracy, p_independence
    # The shuffles get their own best renaming each, or the best of C! would look like skill.
    best = np.array([renamed_right(m, best_renaming(m)) for m in shuffled])
    p_best = p_at_least(renamed_right(counts, renaming), best, exact)
    return max(p_best, renaming_gain_p(counts, renaming)), p_accuracy, p_independence
