"""What guessing would give: confusion matrices with the same margins but no skill in them.

Under guessing, which images get which predicted label is a shuffle; it leaves how often each class
is true and how often it is predicted (the margins) as they are. Every p-value here compares the
matrix that was seen with such shuffles.
"""

import math
from itertools import permutations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom, random_table

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
