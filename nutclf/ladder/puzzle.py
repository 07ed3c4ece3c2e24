"""Rung 7: the test confusion matrix, true, and near-random by each known mistake of evaluation."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import keras
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nutclf.data.folder import Split
from nutclf.evaluate import figures
from nutclf.evaluate.diagnosis import Claim, Diagnosis, diagnose
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.metrics import confusion, confusion_record
from nutclf.evaluate.predictions import labels, prediction_table, probabilities
from nutclf.ladder.rungs import CLAIM, Row
from nutclf.model.backbones import BackboneSpec
from nutclf.model.network import predict_pixels
from nutclf.track.evaluation import FOLDER, write_evaluation
from nutclf.track.runs import Run, write_json
from nutclf.train.learner import Learner
from nutclf.train.workbench import Workbench


@dataclass(frozen=True)
class Exhibit:
    """A confusion matrix, and what its diagnosis makes of it.

    Attributes:
      key: short name for records, of letters and underscores.
      cause: what was done, for people.
      matrix: counts [C, C], rows true.
      diagnosis: of that matrix against the claim.
    """

    key: str
    cause: str
    matrix: np.ndarray
    diagnosis: Diagnosis

    @property
    def rate(self) -> Rate:
        """Share on the diagonal, with its interval."""
        return Rate(self.diagnosis.right, self.diagnosis.n)

    def record(self) -> dict[str, object]:
        """Everything, as JSON takes it."""
        found = asdict(self.diagnosis)
        del found["classes"]  # they stand beside the matrix
        return (
            {"key": self.key, "cause": self.cause, "accuracy": self.rate.share}
            | confusion_record(self.matrix, self.diagnosis.classes)
            | {"diagnosis": found | {"sentence": self.diagnosis.sentence()}}
        )


def exhibit(
    key: str, cause: str, table: pd.DataFrame, classes: Sequence[str], claim: Claim
) -> Exhibit:
    """Holds the confusion matrix of a table of predictions against a claim."""
    matrix = confusion(table, classes)
    return Exhibit(key, cause, matrix, diagnose(matrix, claim, classes))


def in_another_order(table: pd.DataFrame, classes: Sequence[str], seed: int) -> pd.DataFrame:
    """Predictions in shuffled order beside paths and labels in folder order.

    So does `predict` of a generator with `shuffle=True`, compared with `generator.classes`.

    Args:
      table: from `prediction_table`.
      classes: of it.
      seed: of the shuffle.
    """
    order = np.random.default_rng(seed).permutation(len(table))
    y_prob = probabilities(table, classes)[order]
    return prediction_table(table["path"], labels(table, classes)[0], y_prob, classes)


def under_other_names(table: pd.DataFrame, classes: Sequence[str], seed: int) -> pd.DataFrame:
    """The network's outputs read with a class list in another order, as an unsorted listing gives.

    Every class gets another one's name.

    Args:
      table: from `prediction_table`.
      classes: of it, two or more.
      seed: of the order.
    """
    mixed = np.random.default_rng(seed).permutation(len(classes))
    source = np.empty_like(mixed)
    source[mixed] = np.roll(mixed, 1)  # one cycle through all classes: none keeps its name
    y_prob = probabilities(table, classes)[:, source]
    return prediction_table(table["path"], labels(table, classes)[0], y_prob, classes)


def pixels_that_become(
    inputs: np.ndarray, scale: Sequence[float], offset: Sequence[float]
) -> np.ndarray:
    """Pixels that a model with its own scaling turns into `inputs`.

    The model computes `pixel * scale + offset`; this takes it back, so that the network behind the
    scaling sees what an evaluation that forgot to scale would have shown it.

    Args:
      inputs: what the network shall see, [N, S, S, 3].
      scale, offset: of each channel, as in `BackboneSpec`.

    Returns:
      float32 [N, S, S, 3], far outside 0..255 as a rule.
    """
    unscaled = (np.asarray(inputs, np.float64) - np.asarray(offset)) / np.asarray(scale)
    return unscaled.astype(np.float32)


_GOOD = ("consistent",)
_LINE = 30  # characters of a panel's title


def gallery(exhibits: Sequence[Exhibit], title: str, detail: str) -> Figure:
    """A row of heat maps, rows true, columns predicted, shaded by share of the true class.

    Args:
      exhibits: of the same classes, from left to right; the first one's verdict is the truth.
      title, detail: the header's two lines.

    Raises:
      ValueError: there is none, or their classes differ.
    """
    if len({shown.diagnosis.classes for shown in exhibits}) != 1:
        raise ValueError("a row of matrices needs one or more, all of the same classes")
    classes = exhibits[0].diagnosis.classes
    side = 1.5 + 0.17 * len(classes)
    figure = Figure((1.3 + side * len(exhibits), 2.05 + side), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(exhibits), squeeze=False)[0]
    for ax, shown in zip(panels, exhibits, strict=True):
        _panel(ax, shown)
    _names(panels[0], classes)
    figures.finish(figure, title, detail)
    return figure


def _panel(ax: Axes, shown: Exhibit) -> None:
    share = shown.matrix / np.maximum(shown.matrix.sum(axis=1, keepdims=True), 1)
    sns.heatmap(
        share, ax=ax, annot=shown.matrix, fmt="d", annot_kws={"fontsize": 7.5}, vmin=0, vmax=1,
        cmap=sns.blend_palette(figures.SHADES, as_cmap=True), cbar=False, square=True,
        linewidths=0.8, linecolor="white", xticklabels=False, yticklabels=False,
    )  # fmt: skip
    for text, count in zip(ax.texts, shown.matrix.flat, strict=True):
        if not count:  # a hundred zeros would drown the counts
            text.set_visible(False)
    heading = textwrap.fill(shown.cause, _LINE)
    ax.set_title(heading, loc="left", fontsize=10, color=figures.INK, pad=6, parse_math=False)
    good = shown.diagnosis.verdict in _GOOD
    low, high = shown.rate.interval
    below = {"transform": ax.transAxes, "ha": "left", "va": "top", "parse_math": False}
    accuracy = f"accuracy {shown.rate.share:.2f}  ({low:.2f}-{high:.2f})"
    ax.text(0, -0.12, accuracy, fontsize=10, color=figures.INK, **below)
    color = figures.VALID if good else figures.BEST
    ax.text(0, -0.205, shown.diagnosis.verdict, fontsize=10.5, weight="bold", color=color, **below)
    ax.set_xlabel("predicted", fontsize=9, color=figures.MUTED, labelpad=3, loc="left")


def _names(ax: Axes, classes: Sequence[str]) -> None:
    """At the first panel only: the classes of all are the same."""
    middle = np.arange(len(classes)) + 0.5
    ax.set_yticks(middle, classes, parse_math=False, rotation=0, fontsize=9)
    ax.tick_params(length=0, labelcolor=figures.INK)
    ax.set_ylabel("true", fontsize=9, color=figures.MUTED)


NUMBER, TITLE = 7, "test confusion matrix"


def solve_puzzle(
    run: Run, bench: Workbench, learner: Learner, open_test: Callable[[], Split]
) -> list[Row]:
    """Evaluates one good model rightly and wrongly; nothing is chosen by what is seen.

    Args:
      run: of the rung; it counts the opening of the test split, and holds the figure.
      bench: that trained the model.
      learner: fitted.
      open_test: reads the sealed split; called once.

    Returns:
      The rung's lines of the table, the true matrix first.
    """
    # Counted before it happens: what is cut off afterwards has been opened too.
    run.tags({"test_openings": 1})
    run.params({"backbone": bench.config.backbone, "seed": bench.config.seed})
    test, classes = open_test(), bench.classes
    whole, _ = bench.assemble(learner)
    table = _predictions(whole, test, test.pixels, classes)
    again = predict_pixels(whole, test.pixels).argmax(axis=1)
    write_evaluation(run, "test", table, classes, float(np.mean(again == test.labels)))
    tables = _evaluations(whole, bench.backbone.spec, test, table, classes, bench.config.seed)
    exhibits = [exhibit(key, cause, *of, classes, CLAIM) for key, (cause, *of) in tables.items()]
    _record(run, exhibits)
    return [_row(shown) for shown in exhibits]


def _evaluations(
    whole: keras.Model,
    spec: BackboneSpec,
    test: Split,
    table: pd.DataFrame,
    classes: Sequence[str],
    seed: int,
) -> dict[str, tuple[str, pd.DataFrame]]:
    """Each way to evaluate the model, by key: what was done, and the predictions it leaves."""

    def seeing(inputs: np.ndarray) -> pd.DataFrame:
        """Predictions of the network when it is handed `inputs` past its own scaling."""
        pixels = pixels_that_become(inputs, spec.scale, spec.offset)
        return _predictions(whole, test, pixels, classes)

    return {
        "true": ("evaluated rightly", table),
        "shuffled": (
            "predictions in shuffled order, labels in folder order",
            in_another_order(table, classes, seed),
        ),
        "unscaled": ("scaling forgotten: the network sees 0 to 255", seeing(test.pixels)),
        "scaled_to_one": ("another scaling: the network sees 0 to 1", seeing(test.pixels / 255)),
        "renamed": ("class names in another order", under_other_names(table, classes, seed)),
    }


def _predictions(
    whole: keras.Model, images: Split, pixels: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    return prediction_table(images.paths, images.labels, predict_pixels(whole, pixels), classes)


def _record(run: Run, exhibits: Sequence[Exhibit]) -> None:
    """The figure, the matrices with their diagnoses as JSON, and each verdict as a tag."""

    for shown in exhibits:
        found = shown.diagnosis
        run.tags({f"puzzle/{shown.key}": f"{found.verdict}: {found.sentence()}"})
    run.metrics({f"puzzle_{shown.key}_accuracy": shown.rate.share for shown in exhibits})
    title = "One model, one test split: how a good network gets a near-random matrix"
    detail = (
        f"verdicts against the claimed accuracy, {CLAIM}; 95% Wilson intervals; columns in the "
        "order of the rows"
    )
    with run.artifacts() as folder:
        write_json(folder / FOLDER / "puzzle.json", [shown.record() for shown in exhibits])
        gallery(exhibits, title, detail).savefig(folder / FOLDER / "puzzle.png")


def _row(shown: Exhibit) -> Row:
    published = "close to random" if shown.key == "true" else ""
    here = f"{shown.rate.share:.3f}, {shown.diagnosis.verdict}"
    return Row(NUMBER, TITLE, f"accuracy, {shown.cause}", published, here, shown.rate)
