"""Rung 7: the test confusion matrix of one good model, evaluated rightly and with known mistakes.

The published experiment claims 0.94 and shows a test matrix close to random. `diagnose` tells the
possible reasons apart: renamed classes, labels of other images, broken predictions.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import keras
import numpy as np
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.special import gammaln
from scipy.stats import fisher_exact, random_table
from sklearn.metrics import confusion_matrix

from nutclf.data.folder import Split
from nutclf.evaluate import figures
from nutclf.evaluate.intervals import SIGNIFICANCE, Rate
from nutclf.evaluate.metrics import (
    as_counts,
    best_renaming,
    confusion_record,
    moves,
    renaming_gain_p,
)
from nutclf.evaluate.predictions import prediction_table
from nutclf.ladder.rungs import CLAIM, SEED, Row
from nutclf.model.backbones import BackboneSpec
from nutclf.model.network import predict_pixels
from nutclf.track.evaluation import FOLDER, write_evaluation
from nutclf.track.runs import Run, write_json
from nutclf.train.workbench import FitResult, Workbench

NUMBER, TITLE = 7, "test confusion matrix"
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
        verb, limit = "agrees with" if self.agrees else "contradicts", self.repairable / self.n
        said = (
            f"The matrix has {self.right} of {self.n} images right ({self.right / self.n:.3f}), "
            f"which {verb} the claimed {_CLAIMED}."
        )
        if self.verdict == "permuted":
            return (
                f"{said} With classes renamed it is {self.renamed_right / self.n:.3f} "
                f"(p = {self.p_renaming:.2g}): {moves(self.renaming, classes)}. "
                "The class list was read in another order than the network's."
            )
        if self.verdict != "chance":
            return said
        said += (
            f" It cannot be told from guessing (accuracy p = {self.p_accuracy:.2g}, association "
            f"p = {self.p_independence:.2g})."
        )
        if self.agrees:
            return said
        if limit >= CLAIM.share or fits_claim(self.repairable, self.n):
            return (
                f"{said} Yet the same predictions, paired with other images, could reach "
                f"{limit:.3f}: they were likely counted against labels in another order, as a "
                "shuffled loader gives them."
            )
        return (
            f"{said} However they are paired with the images, these predictions reach {limit:.3f} "
            "at most, so label order alone cannot explain it: look for pixels scaled otherwise "
            "than in training, or for other weights."
        )


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
    agrees = fits_claim(right, n)
    verdict = "consistent" if agrees else "contradicts"
    # Two tests look for skill, so each must pass at half the level (Bonferroni). With few images
    # even a perfect matrix may be luck, with probability prod(rows!) / n!.
    if 2 * min(p_accuracy, p_independence) >= SIGNIFICANCE:
        telling = np.exp(gammaln(rows + 1).sum() - gammaln(n + 1)) < SIGNIFICANCE
        verdict = "chance" if telling else verdict
    if p_renaming < SIGNIFICANCE:
        verdict = "permuted"
    renamed_right = int(counts[np.arange(len(counts)), renaming].sum())
    repairable = int(np.minimum(rows, columns).sum())
    p_values = p_renaming, p_accuracy, p_independence
    return Diagnosis(verdict, agrees, right, n, renaming, renamed_right, *p_values, repairable)


def in_another_order(y_prob: np.ndarray, seed: int) -> np.ndarray:
    """Predictions [N, C] as a shuffling loader gives them, beside labels in folder order."""
    return y_prob[np.random.default_rng(seed).permutation(len(y_prob))]


def under_other_names(y_prob: np.ndarray, seed: int) -> np.ndarray:
    """Predictions [N, C] read with a class list in another order: no class keeps its name."""
    mixed = np.random.default_rng(seed).permutation(y_prob.shape[1])
    source = np.empty_like(mixed)
    source[mixed] = np.roll(mixed, 1)  # one cycle through all classes
    return y_prob[:, source]


def pixels_that_become(inputs: np.ndarray, spec: BackboneSpec) -> np.ndarray:
    """Pixels [N, S, S, 3] whose scaling by the model gives `inputs`, float32.

    So the network behind the scaling sees what an evaluation that forgot to scale shows it.
    """
    return ((inputs - np.asarray(spec.offset)) / np.asarray(spec.scale)).astype(np.float32)


class Exhibit(NamedTuple):
    """A way to evaluate the model (a key for records, and in words), its matrix and diagnosis."""

    key: str
    cause: str
    matrix: np.ndarray
    found: Diagnosis


def solve_puzzle(
    run: Run, bench: Workbench, result: FitResult, open_test: Callable[[], Split]
) -> list[Row]:
    """Evaluates one good model rightly and wrongly, and records it; nothing is chosen by it.

    `open_test` reads the sealed split; it is called once, and counted in `run`.

    Returns:
      The rung's lines of the table, the true matrix first.
    """
    # Counted before it happens, so that an interrupted opening is counted too.
    run.tags({"test_openings": 1})
    run.params({"backbone": bench.config.backbone, "seed": SEED})
    test, classes = open_test(), bench.classes
    whole, _ = bench.assemble(result)
    y_prob = predict_pixels(whole, test.pixels)
    table = prediction_table(test.paths, test.labels, y_prob, classes)
    accuracy = float(np.mean(y_prob.argmax(axis=1) == test.labels))
    write_evaluation(run, "test", table, classes, accuracy)
    exhibits = []
    for key, cause, said in evaluations(whole, bench.backbone.spec, test.pixels, y_prob):
        names = range(len(classes))
        matrix = confusion_matrix(test.labels, said.argmax(axis=1), labels=names)
        exhibits.append(Exhibit(key, cause, matrix, diagnose(matrix)))
    return _record(run, exhibits, classes)


def evaluations(whole: keras.Model, spec: BackboneSpec, pixels: np.ndarray, y_prob: np.ndarray):
    """Each way to evaluate the model: its key, what was done, and the predictions [N, C]."""
    shuffled = "predictions in shuffled order, labels in folder order"
    yield "true", "evaluated rightly", y_prob
    yield "shuffled", shuffled, in_another_order(y_prob, SEED)
    for key, cause, inputs in (
        ("unscaled", "scaling forgotten: the network sees 0 to 255", pixels),
        ("scaled_to_one", "another scaling: the network sees 0 to 1", pixels / 255),
    ):
        yield key, cause, predict_pixels(whole, pixels_that_become(inputs, spec))
    yield "renamed", "class names in another order", under_other_names(y_prob, SEED)


def _record(run: Run, exhibits: Sequence[Exhibit], classes: Sequence[str]) -> list[Row]:
    rows, records = [], []
    for key, cause, matrix, found in exhibits:
        rate, sentence = Rate(found.right, found.n), found.sentence(classes)
        run.tags({f"puzzle/{key}": f"{found.verdict}: {sentence}"})
        run.metrics({f"puzzle_{key}_accuracy": rate.share})
        record = {"key": key, "cause": cause, "accuracy": rate.share}
        record |= confusion_record(matrix, classes)
        records.append(record | {"diagnosis": asdict(found) | {"sentence": sentence}})
        published = "close to random" if key == "true" else ""
        here = f"{rate.share:.3f}, {found.verdict}"
        rows.append(Row(NUMBER, TITLE, f"accuracy, {cause}", published, here, rate))
    with run.artifacts() as folder:
        write_json(folder / FOLDER / "puzzle.json", records)
        gallery(exhibits, classes).savefig(folder / FOLDER / "puzzle.png")
    return rows


def gallery(exhibits: Sequence[Exhibit], classes: Sequence[str]) -> Figure:
    """A row of heat maps, rows true, columns predicted, shaded by share of the true class."""
    side = 1.5 + 0.17 * len(classes)
    figure = Figure((1.3 + side * len(exhibits), 2.05 + side), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(exhibits), squeeze=False)[0]
    shades = sns.blend_palette(figures.SHADES, as_cmap=True)
    quiet = {"fontsize": 9, "color": figures.MUTED}
    plain = {"parse_math": False}  # a class or a cause may hold a dollar sign
    for ax, (_, cause, matrix, found) in zip(panels, exhibits, strict=True):
        sns.heatmap(
            matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1),
            ax=ax, annot=matrix, fmt="d", annot_kws={"fontsize": 7.5}, vmin=0, vmax=1, cmap=shades,
            cbar=False, square=True, linewidths=0.8, linecolor="white", xticklabels=False,
            yticklabels=False,
        )  # fmt: skip
        for text, count in zip(ax.texts, matrix.flat, strict=True):
            text.set_visible(bool(count))  # a hundred zeros would drown the counts
        ax.set_title(textwrap.fill(cause, 30), loc="left", size=10, color=figures.INK, **plain)
        ax.set_xlabel("predicted", labelpad=3, loc="left", **quiet)
        rate, below = Rate(found.right, found.n), {"transform": ax.transAxes, "va": "top"}
        low, high = rate.interval
        accuracy = f"accuracy {rate.share:.2f}  ({low:.2f}-{high:.2f})"
        ax.text(0, -0.12, accuracy, size=10, color=figures.INK, **below)
        color = figures.VALID if found.verdict == "consistent" else figures.BEST
        ax.text(0, -0.205, found.verdict, size=10.5, weight="bold", color=color, **below)
    # Named at the first panel only: the classes of all are the same.
    panels[0].set_yticks(np.arange(len(classes)) + 0.5, classes, rotation=0, fontsize=9, **plain)
    panels[0].tick_params(length=0, labelcolor=figures.INK)
    panels[0].set_ylabel("true", **quiet)
    title = "One model, one test split: how a good network gets a near-random matrix"
    detail = f"verdicts against the claimed accuracy, {_CLAIMED}; 95% Wilson intervals"
    figures.finish(figure, title, f"{detail}; columns in the order of the rows")
    return figure
