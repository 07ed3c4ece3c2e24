"""Checks that no renaming of the classes explains a confusion matrix better than its own names."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom

from nutclf.evaluate.comparison import SIGNIFICANCE
from nutclf.evaluate.metrics import as_counts


def best_renaming(counts: np.ndarray) -> tuple[int, ...]:
    """The one-to-one renaming of predicted classes with the most correct images.

    Entry i is the predicted class that stands for true class i: i itself where nothing is gained.
    """
    # The unit on the diagonal decides ties for "no move", and can never outweigh an image.
    gain = counts * (len(counts) + 1) + np.eye(len(counts), dtype=np.int64)
    return tuple(int(column) for column in linear_sum_assignment(gain, maximize=True)[1])


def renaming_gain_p(counts: np.ndarray, renaming: Sequence[int]) -> float:
    """Upper bound on the probability that luck favours some renaming of as many classes this much.

    A sign test: each image of a moved class that is right under exactly one of the two namings is a
    coin toss if neither is truer. Predictions that ignore the image, as of a network that always
    answers one class, weight the coin by the column totals; the kinder coin counts (unequal coins
    have no heavier tail than equal ones of their mean: Hoeffding, Ann. Math. Stat. 27 (1956) 713).
    The renaming is the best of many, so its p-value is multiplied by how many there are, choose(C,
    m) times the derangements of m (Boole).
    """
    moved = [i for i, j in enumerate(renaming) if i != j]
    to, m, columns = [renaming[i] for i in moved], len(moved), counts.sum(axis=0)
    renamed, tosses = counts[moved, to].sum(), counts[moved, to] + counts[moved, moved]
    if not tosses.sum():
        return 1.0
    coins = columns[to] / np.maximum(columns[to] + columns[moved], 1)
    one = binom.sf(renamed - 1, tosses.sum(), max(0.5, np.average(coins, weights=tosses)))
    derangements = sum((-1) ** k * math.factorial(m) // math.factorial(k) for k in range(m + 1))
    return min(1.0, float(one) * math.comb(len(counts), m) * derangements)


def moves(renaming: Sequence[int], classes: Sequence[str]) -> str:
    """Which class appears under which name, e.g. "almonds appears as pecans"."""
    pairs = [f"{classes[i]} appears as {classes[j]}" for i, j in enumerate(renaming) if i != j]
    return ", ".join(pairs)


def check_matrix(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """One sentence about a confusion matrix [C, C], rows true, whose class names are in order.

    Raises:
      ValueError: a renaming of the classes explains the matrix better, by more than luck.
    """
    counts = as_counts(matrix, len(classes))
    right, n, renaming = int(counts.trace()), int(counts.sum()), best_renaming(counts)
    renamed = int(counts[np.arange(len(counts)), renaming].sum())
    found = f"{right} of {n} images are right ({right / n:.3f})"
    if renamed == right:
        return f"{found}; no renaming of the classes has more."
    p = renaming_gain_p(counts, renaming)
    if p >= SIGNIFICANCE:
        return f"{found}; the best renaming of the classes has {renamed}, which luck explains."
    raise ValueError(
        f"{found}, but {renamed} with the classes renamed (p = {p:.2g}): "
        f"{moves(renaming, classes)}. The class list was read in another order than the network's."
    )
