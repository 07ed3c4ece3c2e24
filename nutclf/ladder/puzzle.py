"""Rung 7: the test confusion matrix of one good model, evaluated correctly and with known mistakes.

The published experiment claims 0.94 and shows a test matrix close to random. `diagnose` tells the
possible reasons apart: renamed classes, labels of other images, broken predictions.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from scipy.special import gammaln
from scipy.stats import fisher_exact, random_table

from nutclf.evaluate import figures
from nutclf.evaluate.intervals import SIGNIFICANCE, Rate
from nutclf.evaluate.metrics import as_counts, best_renaming, moves, renaming_gain_p
from nutclf.model.backbones import BackboneSpec
from nutclf.model.network import predict

CLAIM = Rate(47, 50)
"""The published accuracy, 0.94 on 50 validation images."""
_CLAIMED = f"{CLAIM.share:.2f} on {CLAIM.n} other images"


@dataclass(frozen=True)
class Diagnosis:
    """What a confusion matrix says about itself and about the published accuracy.

    The verdict is `permuted` (skilled once classes are renamed), `chance` (cannot be told from
    guessing), `contradicts` (skilled, but not as claimed) or `consistent`.
    """

    verdict: str
    agrees: bool  # whether this accuracy and the claimed one can belong to one network
    right: int  # images on the diagonal
    n: int
    renaming: tuple[int, ...]  # for each true class the predicted one that stands for it
    renamed_right: int  # images right once so renamed
    p_renaming: float  # at most the probability that luck favours some renaming as much
    p_accuracy: float  # probability that guesses with the same margins are right as often
    p_independence: float  # and that they tie predicted to true classes as closely
    repairable: int  # images these predictions could have right if paired with other images

    def sentence(self, classes: Sequence[str]) -> str:
        """The diagnosis in plain words: the figures, what they mean, and where to look."""
        limit = self.repairable / self.n
        said = (
            f"The matrix has {self.right} of {self.n} images right ({self.right / self.n:.3f}), "
            f"which {'agrees with' if self.agrees else 'contradicts'} the claimed {_CLAIMED}."
        )
        if self.verdict == "permuted":
            said += (
                f" With classes renamed it is {self.renamed_right / self.n:.3f} "
                f"(p = {self.p_renaming:.2g}): {moves(self.renaming, classes)}. "
                "The class list was read in another order than the network's."
            )
        elif self.verdict == "chance":
            said += (
                f" It cannot be told from guessing (accuracy p = {self.p_accuracy:.2g}, "
                f"association p = {self.p_independence:.2g})."
            )
            if not self.agrees and (limit >= CLAIM.share or fits_claim(self.repairable, self.n)):
                said += (
                    " Yet the same predictions, paired with other images, could reach "
                    f"{limit:.3f}: they were likely counted against labels in another order, as a "
                    "shuffled loader gives them."
                )
            elif not self.agrees:
                said += (
                    " However they are paired with the images, these predictions reach "
                    f"{limit:.3f} at most, so label order alone cannot explain it: look for pixels "
                    "scaled otherwise than in training, or for other weights."
                )
        return said


def fits_claim(right: int, n: int) -> bool:
    """Whether `right` of `n` and the claim can share one accuracy, by Fisher's exact test."""
    table = [[right, n - right], [CLAIM.successes, CLAIM.n - CLAIM.successes]]
    return float(fisher_exact(table).pvalue) >= SIGNIFICANCE


def diagnose(matrix: np.ndarray, draws: int = 9999, seed: int = 0) -> Diagnosis:
    """Compares counts [C, C], rows true, with the claim, with guessing and with renamed classes.

    p-values of accuracy and association are shares of `draws` matrices with the same margins.
    """
    counts = as_counts(matrix)
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    right, n, renaming = int(counts.trace()), int(counts.sum()), best_renaming(counts)
    drawn = random_table(rows, columns, seed=seed).rvs(draws).astype(np.int64)
    products = np.maximum(np.outer(rows, columns), 1)

    def p_value(statistic: Callable[[np.ndarray], float]) -> float:
        # A sample never claims p = 0: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39.
        seen = statistic(counts) - 1e-9  # sums of the same terms differ in rounding
        return (sum(statistic(one) >= seen for one in drawn) + 1) / (draws + 1)

    p_accuracy = p_value(np.trace)
    p_independence = p_value(lambda one: (one**2 / products).sum())  # chi-square / n + 1
    p_renaming = renaming_gain_p(counts, renaming)
    verdict = "consistent" if (agrees := fits_claim(right, n)) else "contradicts"
    # Two tests look for skill, so each must pass at half the level (Bonferroni). With few images
    # even a perfect matrix may be luck, with probability prod(rows!) / n!.
    telling = np.exp(gammaln(rows + 1).sum() - gammaln(n + 1)) < SIGNIFICANCE
    if p_renaming < SIGNIFICANCE:
        verdict = "permuted"
    elif telling and 2 * min(p_accuracy, p_independence) >= SIGNIFICANCE:
        verdict = "chance"
    renamed_right = int(counts[np.arange(len(counts)), renaming].sum())
    repairable = int(np.minimum(rows, columns).sum())
    p_values = p_renaming, p_accuracy, p_independence
    return Diagnosis(verdict, agrees, right, n, renaming, renamed_right, *p_values, repairable)


def under_other_names(y_prob: np.ndarray, seed: int = 0) -> np.ndarray:
    """Predictions [N, C] read with a class list in another order: no class keeps its name."""
    mixed = np.random.default_rng(seed).permutation(y_prob.shape[1])
    source = np.empty_like(mixed)
    source[mixed] = np.roll(mixed, 1)  # one cycle through all classes
    return y_prob[:, source]


def pixels_that_become(inputs: np.ndarray, spec: BackboneSpec) -> np.ndarray:
    """Pixels [N, S, S, 3] whose scaling by the model gives `inputs`, as if it had not scaled."""
    pixels = ((inputs - np.asarray(spec.offset)) / np.asarray(spec.scale)).astype(np.float32)
    return pixels[..., ::-1] if spec.bgr else pixels


def evaluations(whole: keras.Model, spec: BackboneSpec, pixels: np.ndarray, y_prob: np.ndarray):
    """Each way to evaluate the model: its key, what was done, and the predictions [N, C]."""

    def answers_to(inputs: np.ndarray) -> np.ndarray:
        return predict(whole, pixels_that_become(inputs, spec))

    order = np.random.default_rng(0).permutation(len(y_prob))
    yield "true", "evaluated correctly", y_prob
    yield "shuffled", "predictions in shuffled order, labels in folder order", y_prob[order]
    yield "unscaled", "scaling forgotten: the network sees 0 to 255", answers_to(pixels)
    yield "scaled_to_one", "another scaling: the network sees 0 to 1", answers_to(pixels / 255)
    yield "renamed", "class names in another order", under_other_names(y_prob)


def gallery(
    exhibits: Sequence[tuple[str, np.ndarray, Diagnosis]], classes: Sequence[str]
) -> Figure:
    """A row of heat maps, rows true, columns predicted, shaded by share of the true class."""
    side = 1.5 + 0.17 * len(classes)
    figure = figures.blank(1.3 + side * len(exhibits), 2.05 + side)
    panels = figure.subplots(1, len(exhibits), squeeze=False)[0]
    plain = {"parse_math": False}  # a class or a cause may hold a dollar sign
    for ax, (cause, matrix, found) in zip(panels, exhibits, strict=True):
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        counts = np.where(matrix, matrix.astype(str), "")  # a hundred zeros would drown the others
        sns.heatmap(
            share, ax=ax, annot=counts, fmt="", annot_kws={"fontsize": 7.5}, vmin=0, vmax=1,
            cmap=sns.blend_palette(figures.SHADES, as_cmap=True), cbar=False, square=True,
            linewidths=0.8, linecolor="white", xticklabels=False, yticklabels=False,
        )  # fmt: skip
        ax.set_title(textwrap.fill(cause, 30), loc="left", size=10, color=figures.INK, **plain)
        low, high = (rate := Rate(found.right, found.n)).interval
        below = f"accuracy {rate.share:.2f}  ({low:.2f}-{high:.2f})\n{found.verdict}"
        ax.set_xlabel(below, loc="left", size=10, color=figures.INK)
    panels[0].set_yticks(np.arange(len(classes)) + 0.5, classes, rotation=0, fontsize=9, **plain)
    panels[0].set_ylabel("true", color=figures.MUTED)
    title = "One model, one test split: how a good network gets a near-random matrix"
    detail = f"verdicts against the claimed {_CLAIMED}; 95% Wilson intervals; columns predicted"
    figures.finish(figure, title, detail)
    return figure
