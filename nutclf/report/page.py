"""One self-contained page of a study: no script, no network, every word of the data escaped."""

import ast
import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from nutclf.config import RANGES
from nutclf.data.reader import UnreadableImage, read_image
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.mistakes import spotlight, worst_mistakes
from nutclf.track.evaluation import stored_json, stored_predictions
from nutclf.track.runs import Run, file_name
from nutclf.track.store import Store
from nutclf.track.studies import RECIPE, StudyRecord, TrialRecord

FOLDER, PAGE = "reports", "report.html"
SPLITS = ("cv", "valid", "test")
_CURVES = ("train_loss", "valid_loss", "train_accuracy", "valid_accuracy", "learning_rate")


@dataclass(frozen=True)
class Evidence:
    """What the best trial of a study left behind, and what was found in its images.

    Attributes:
      matrices: by split, `{"classes": [...], "matrix": [[...]]}`, rows true.
      predictions: of the split that judges the study; None where they are gone.
      curves: one row an epoch, from 1; the columns that were recorded among `train_loss`,
        `valid_loss`, `train_accuracy`, `valid_accuracy`, `learning_rate`.
      metrics: of the run, once.
      gradcam: answers with their maps, as in `gradcam.json`.
      audit: as in `audit.json`; None where nobody audited.
    """

    matrices: Mapping[str, Mapping]
    predictions: pd.DataFrame | None
    curves: pd.DataFrame
    metrics: Mapping[str, float]
    gradcam: Sequence[Mapping]
    audit: Mapping | None


def read_evidence(record: StudyRecord) -> Evidence:
    """Reads it from the runs of a study and of its best trial."""
    run = record.best_run
    matrices = {split: stored_json(run, f"confusion_matrix_{split}.json") for split in SPLITS}
    return Evidence(
        matrices={split: matrix for split, matrix in matrices.items() if matrix},
        predictions=stored_predictions(run, record.judged_on),
        curves=_curves(run),
        metrics=run.client.get_run(run.run_id).data.metrics,
        gradcam=stored_json(run, "gradcam.json") or (),
        audit=stored_json(record.run, "audit.json", "audit"),
    )


def keep_page(store: Store, record: StudyRecord, page: str) -> Path:
    """Writes a page to `reports/<study>.html` of the store and to `report/` of the study's run."""
    path = store.folder / FOLDER / f"{file_name(record.name)}.html"
    path.parent.mkdir(exist_ok=True)
    path.write_text(page, encoding="utf-8")
    with record.run.artifacts() as root:
        (root / "report").mkdir()
        (root / "report" / PAGE).write_text(page, encoding="utf-8")
    return path


def _curves(run: Run) -> pd.DataFrame:
    history = {name: run.client.get_metric_history(run.run_id, name) for name in _CURVES}
    columns = {
        name: {point.step: point.value for point in points}
        for name, points in history.items()
        if points
    }
    return pd.DataFrame(columns).sort_index()


WIDTH, HEIGHT = 360, 220  # of the drawing's own units: on a phone one unit is about a pixel
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 34
_TICKS = 5  # about as many along an axis
_SMALL = 0.01


@dataclass(frozen=True)
class Series:
    """Values to draw.

    Attributes:
      name: for the legend.
      look: a class of the style sheet, which gives the colour.
      points: (x, y), x rising.
      titles: one a point, shown when a person rests on it; none for a line alone.
      steps: whether a value holds until the next.
    """

    name: str
    look: str
    points: Sequence[tuple[float, float]]
    titles: Sequence[str] = ()
    steps: bool = False


@dataclass(frozen=True)
class Tick:
    """A place along an axis, in the drawing's units, and what stands there."""

    at: float
    label: str


@dataclass(frozen=True)
class Drawn:
    """A series in the drawing's units.

    Attributes:
      series: what it is.
      path: of an SVG path.
      dots: x, y and title.
    """

    series: Series
    path: str
    dots: Sequence[tuple[float, float, str]]


@dataclass(frozen=True)
class Chart:
    """A chart, ready for a template."""

    title: str
    x_label: str
    across: Sequence[Tick]
    up: Sequence[Tick]
    drawn: Sequence[Drawn]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM


def chart(title: str, x_label: str, series: Sequence[Series]) -> Chart:
    """Arranges series on common axes; x counts something (trials, epochs), so it has whole ticks.

    Raises:
      ValueError: there is no point at all.
    """
    xs = [x for each in series for x, _ in each.points]
    ys = [y for each in series for _, y in each.points]
    if not xs:
        raise ValueError(f"chart {title!r} has nothing to show")
    x_ticks, y_ticks = ticks(min(xs), max(xs), whole=True), ticks(min(ys), max(ys))
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def x_at(value: float) -> float:
        return _between(value, min(*xs, x_ticks[0]), max(*xs, x_ticks[-1]), _LEFT + 6, right - 4)

    def y_at(value: float) -> float:
        return _between(value, y_ticks[0], y_ticks[-1], bottom, _TOP)

    drawn = []
    for each in series:
        places = [(x_at(x), y_at(y)) for x, y in each.points]
        titled = zip(places, each.titles, strict=False)
        drawn.append(Drawn(each, _path(places, each.steps), [(*at, text) for at, text in titled]))
    across = [Tick(x_at(value), f"{value:g}") for value in x_ticks]
    up = [Tick(y_at(v), label) for v, label in zip(y_ticks, _labels(y_ticks), strict=True)]
    return Chart(title, x_label, across, up, drawn)


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round values that enclose `low` and `high`: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low or abs(high) or 1) / _TICKS
    power = 10 ** math.floor(math.log10(raw))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= raw * 0.999)
    step = max(1, round(step)) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Whole axes begin and end with the data: there is no trial -5.
    if whole:
        first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 12) for i in range(first, max(last, first + (not whole)) + 1)]


def _labels(values: Sequence[float]) -> list[str]:
    """All with the decimals that one of them needs; small numbers as 3.5e-4, to fit the margin."""
    if max(map(abs, values)) < _SMALL:
        return [f"{value:.1e}".replace("e-0", "e-") if value else "0" for value in values]
    decimals = max(len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in values)
    return [f"{value:.{decimals}f}" for value in values]


def _between(value: float, low: float, high: float, start: float, end: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return round(start + share * (end - start), 1)


def _path(places: Sequence[tuple[float, float]], steps: bool) -> str:
    first, *others = places or [(0, 0)]
    moves = [f"M{first[0]} {first[1]}"]
    moves += [f"H{x}V{y}" if steps else f"L{x} {y}" for x, y in others]
    return "".join(moves)


def history_chart(record: StudyRecord) -> Chart:
    """The objective of each finished trial in the order of the search, and the best so far."""
    finished = [trial for trial in record.trials if trial.value is not None]
    values = [(trial.number, trial.value) for trial in finished]
    titles = [f"{trial.name}: {trial.value:.4f}" for trial in finished]
    last = max(trial.number for trial in record.trials)
    best = _best_so_far(finished, record)
    best.append((last, best[-1][1]))
    series = [
        Series("best so far", "best", best, steps=True),
        Series("trial", "dot", values, titles),
    ]
    return chart(record.objective.metric, "trial", series)


def training_charts(curves: pd.DataFrame, best_epoch: int | None) -> list[Chart]:
    """Loss, accuracy and learning rate by epoch, of what was recorded of them.

    Args:
      curves: one row an epoch, its number the index.
      best_epoch: the one that was kept; None where it is not known.
    """
    charts = []
    for what in ("loss", "accuracy"):
        series = [
            Series(name, look, _points(curves, f"{split}_{what}"))
            for split, name, look in (("train", "training", "train"), ("valid", "validation", ""))
            if f"{split}_{what}" in curves
        ]
        kept = [point for point in _points(curves, f"valid_{what}") if point[0] == best_epoch]
        titles = [f"kept: epoch {x}, {y:.4f}" for x, y in kept]
        series += [Series("kept", "dot", kept, titles)] if kept else []
        charts += [chart(what, "epoch", series)] if series else []
    if rates := _points(curves, "learning_rate"):
        charts.append(chart("learning rate", "epoch", [Series("learning rate", "", rates)]))
    return charts


def _points(curves: pd.DataFrame, column: str) -> list[tuple[int, float]]:
    if column not in curves:
        return []
    return [(int(epoch), float(value)) for epoch, value in curves[column].dropna().items()]


def _best_so_far(finished: Sequence[TrialRecord], record: StudyRecord) -> list[tuple[float, float]]:
    best: list[tuple[float, float]] = []
    for trial in finished:
        if not best or record.objective.better_than(trial.value, best[-1][1]):
            best.append((trial.number, trial.value))
    return best


SIDE = 168  # pixels; shown at half of that to a third on a phone's dense screen
_QUALITY = 78


def thumbnail(root: Path, path: str, heat: list[list[float]] | None = None) -> str:
    """A `data:` address of an image of the data set; "" where it cannot be read any more.

    Args:
      root: folder of the data set.
      path: of the image, relative to it.
      heat: lays this map over the picture, rows of numbers 0 to 1.
    """
    try:
        pixels = read_image(root / path, SIDE)
    except (UnreadableImage, OSError):
        return ""
    shown = pixels if heat is None else spotlight(pixels, np.array(heat))
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


_SPLITS = {"cv": "out of fold", "valid": "valid", "test": "test"}


@dataclass(frozen=True)
class Ranked:
    """One line of the ranking.

    Attributes:
      trial: what it is.
      name: short; the recipe stands in its own columns.
      recipe: its searched values as text, in the order of the heading.
      low, mid, high: accuracy and its interval, percent of the width of the column.
    """

    trial: TrialRecord
    name: str
    recipe: tuple[str, ...]
    low: float
    mid: float
    high: float


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix to show.

    Attributes:
      split: for people.
      rate: the accuracy.
      classes: in order.
      rows: counts with their share of the row, 0 to 1.
    """

    split: str
    rate: Rate
    classes: list[str]
    rows: list[list[tuple[int, float]]]


def searched(record: StudyRecord) -> dict[str, str]:
    """What the study searched, by parameter; what had one choice only is left out."""
    spaces = {name: _values(record.params.get(f"space.{name}", "")) for name in RECIPE}
    return {name: _space(name, values) for name, values in spaces.items() if len(set(values)) > 1}


def fixed(record: StudyRecord) -> dict[str, str]:
    """What all trials share: settings of the study, without the space."""
    return {
        name: value
        for name, value in record.params.items()
        if not name.startswith(("space.", "name"))
        and name.removeprefix("baseline.") not in searched(record)
    }


def ranking(record: StudyRecord, most: int) -> list[Ranked]:
    """The best `most` trials; their intervals share one axis."""
    trials, names = record.ranking[:most], list(searched(record))
    ends = [end for trial in trials for end in trial.accuracy.interval]
    low, width = min(ends), (max(ends) - min(ends)) or 1

    def at(share: float) -> float:
        return round(100 * (share - low) / width, 1)

    return [
        Ranked(
            trial,
            f"t{trial.number:03d}",
            tuple(short(trial.recipe.get(name, "")) for name in names),
            at(trial.accuracy.interval[0]),
            at(trial.accuracy.share),
            at(trial.accuracy.interval[1]),
        )
        for trial in trials
    ]


def matrix(split: str, record: Mapping) -> Matrix:
    """A stored matrix as rows of cells."""
    counts = record["matrix"]
    right, n = sum(row[i] for i, row in enumerate(counts)), sum(map(sum, counts))
    rows = [[(count, count / (sum(row) or 1)) for count in row] for row in counts]
    return Matrix(_SPLITS[split], Rate(right, n), record["classes"], rows)


def short(text: str) -> str:
    """A number in three digits that count; other text as it is."""
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text


def _values(text: str) -> tuple:
    return ast.literal_eval(text) if text.startswith("(") else ()


def _space(name: str, values: tuple) -> str:
    shown = [short(str(value)) for value in values]
    if name in RANGES:
        return f"{shown[0]} to {shown[1]}" + (", log" if name == "learning_rate" else "")
    return ", ".join(shown)


_HERE = Path(__file__).parent
_RANKED, _MISTAKES, _SUSPECTS, _LISTED = 20, 24, 12, 10


def draw_page(
    record: StudyRecord, evidence: Evidence, importances: Mapping[str, float], root: Path
) -> str:
    """The page as HTML.

    Args:
      record: of the study.
      evidence: of its best trial.
      importances: share of each parameter, the largest first; empty where nothing can be told.
      root: folder of the data set, for the pictures.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(_HERE)
    pages = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    best_epoch = evidence.metrics.get("best_epoch")
    return pages.get_template("page.html").render(
        study=record,
        searched=searched(record),
        fixed=fixed(record),
        ranking=ranking(record, _RANKED),
        history=history_chart(record),
        importances=importances,
        training=training_charts(evidence.curves, best_epoch and int(best_epoch)),
        matrices=[matrix(split, found) for split, found in evidence.matrices.items()],
        mistakes=_mistakes(evidence, root),
        gradcam=_gradcam(evidence, root),
        metrics=evidence.metrics,
        audit=evidence.audit,
        audited=_audited(evidence, root),
        listed=_LISTED,
    )


def _mistakes(evidence: Evidence, root: Path) -> list[dict]:
    if evidence.predictions is None:
        return []
    found = worst_mistakes(evidence.predictions, _MISTAKES)
    return [vars(answer) | {"picture": thumbnail(root, answer.path)} for answer in found]


def _gradcam(evidence: Evidence, root: Path) -> list[dict]:
    return [
        {
            **answer,
            "picture": thumbnail(root, answer["path"]),
            "lit": thumbnail(root, answer["path"], answer["heat"]),
        }
        for answer in evidence.gradcam
    ]


def _audited(evidence: Evidence, root: Path) -> dict[str, list]:
    """What an audit found that is worth a look."""
    if evidence.audit is None:
        return {}
    suspects = evidence.audit["label_suspects"]["suspects"][:_SUSPECTS]
    return {
        "suspects": [row | {"picture": thumbnail(root, row["path"])} for row in suspects],
        "across": [pair for pair in evidence.audit["pairs"] if pair["across_splits"]],
        "disagreeing": [pair for pair in evidence.audit["pairs"] if pair["labels_disagree"]],
    }
