"""Reads any confusion matrix against the accuracy claimed for it, and says what is wrong.

The published experiment claims 0.94 and shows a test matrix close to random; this file tells the
possible reasons apart: another figure, renamed classes, labels of other images, broken predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nutclf.evaluate import chance
from nutclf.evaluate.claims import SIGNIFICANCE, Claim
from nutclf.evaluate.metrics import as_counts


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
    renaming = chance.best_renaming(counts)
    p_renaming, p_accuracy, p_independence = _p_values(counts, renaming, draws, seed)
    agrees = claim.fits(right, n)
    # Two tests look for skill, so each must pass at half the level (Bonferroni).
    guessing = 2 * min(p_accuracy, p_independence) >= SIGNIFICANCE
    if p_renaming < SIGNIFICANCE:
        verdict = "permuted"
    elif guessing and chance.p_of_all_right(counts) < SIGNIFICANCE:
        verdict = "chance"
    else:
        verdict = "consistent" if agrees else "contradicts"
    return Diagnosis(
        verdict=verdict,
        agrees=agrees,
        right=right,
        n=n,
        renaming=renaming,
        renamed_right=chance.renamed_right(counts, renaming),
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
    shuffled, exact = chance.shuffled_matrices(counts, draws, seed)
    diagonals = np.trace(shuffled, axis1=1, axis2=2)
    p_accuracy = chance.p_at_least(np.trace(counts), diagonals, exact)
    seen = chance.association(counts, rows, columns)
    p_independence = chance.p_at_least(seen, chance.association(shuffled, rows, columns), exact)
    if renaming == tuple(range(len(counts))):
        return 1.0, p_accuracy, p_independence
    # The shuffles get their own best renaming each, or the best of C! would look like skill.
    best = np.array([chance.renamed_right(m, chance.best_renaming(m)) for m in shuffled])
    p_best = chance.p_at_least(chance.renamed_right(counts, renaming), best, exact)
    return max(p_best, chance.renaming_gain_p(counts, renaming)), p_accuracy, p_independence
