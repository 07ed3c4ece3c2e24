"""One self-contained page of a study: no script, no network, all text from data escaped."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from nutclf.config import RANGES
from nutclf.data.reader import UnreadableImage, read_image
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.mistakes import spotlight, worst_mistakes
from nutclf.report.charts import cost_chart, history_chart, training_charts
from nutclf.track.evaluation import MAX_CLASSES, stored_json, stored_predictions
from nutclf.track.runs import file_name
from nutclf.track.store import Store
from nutclf.track.studies import StudyRecord
from nutclf.track.studies import searched as searched_values

SIDE = 168  # pixels of a picture; a phone's dense screen shows it at a third to a half of that
_SPLITS = {"cv": "out of fold", "valid": "valid", "test": "test"}
_CURVES = ("train_loss", "valid_loss", "train_accuracy", "valid_accuracy", "learning_rate")
_RANKED, _MISTAKES = 20, 24  # shown at most


@dataclass(frozen=True)
class Evidence:
    """What the best model of a study left behind, and what an audit found in its images."""

    matrices: Mapping[str, Mapping]  # by split: {"classes": [...], "matrix": [[...]]}, rows true
    predictions: pd.DataFrame | None  # of the split that judges the study; None: gone
    curves: pd.DataFrame  # one row an epoch, from 1; the columns of `_CURVES` that were recorded
    metrics: Mapping[str, float]  # of the run, once
    gradcam: Sequence[Mapping]  # answers with their maps, as in `gradcam.json`
    audit: Mapping | None  # as in `audit.json`; None before an audit
    probe: Mapping[str, float]  # metrics of the run of the best probe; {} without one


def read_evidence(record: StudyRecord) -> Evidence:
    """Reads the runs of a study and of its best model."""
    run, probe = record.best_run, record.best_probe
    matrices = {split: stored_json(run, f"confusion_matrix_{split}.json") for split in _SPLITS}
    history = {name: run.client.get_metric_history(run.run_id, name) for name in _CURVES}
    curves = {name: {p.step: p.value for p in points} for name, points in history.items() if points}
    return Evidence(
        matrices={split: matrix for split, matrix in matrices.items() if matrix},
        predictions=stored_predictions(run, record.judged_on),
        curves=pd.DataFrame(curves).sort_index(),
        metrics=run.client.get_run(run.run_id).data.metrics,
        gradcam=stored_json(run, "gradcam.json") or (),
        audit=stored_json(record.run, "audit.json", "audit"),
        probe=run.client.get_run(probe.run_id).data.metrics if probe else {},
    )


def keep_page(store: Store, record: StudyRecord, page: str) -> Path:
    """Writes a page to `reports/<study>.html` of the store and to `report/` of the study's run."""
    path = store.folder / "reports" / f"{file_name(record.name)}.html"
    with record.run.artifacts() as root:
        for file in (path, root / "report" / "report.html"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(page, encoding="utf-8")
    return path


def draw_page(
    record: StudyRecord, evidence: Evidence, importances: Mapping[str, float], root: Path
) -> str:
    """The page as HTML.

    `importances` is the share of each parameter, the largest first; empty with too few trials.
    `root` is the data set's folder, for the pictures.
    """
    here = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=here, autoescape=True, undefined=StrictUndefined)
    table, best_epoch = evidence.predictions, evidence.metrics.get("best_epoch")
    matrices = []
    for split, found in evidence.matrices.items():
        counts = np.array(found["matrix"])
        rate = Rate(int(counts.trace()), int(counts.sum()))
        taken = [] if len(counts) <= MAX_CLASSES else _confusions(counts, found["classes"])
        matrices.append({**found, "split": _SPLITS[split], "rate": rate, "taken": taken})
    return pages.get_template("page.html").render(
        study=record,
        evidence=evidence,
        importances=importances,
        searched=searched(record),
        ranking=ranking(record, _RANKED),
        progress=[history_chart(record), cost_chart(record)],
        training=training_charts(evidence.curves, best_epoch, evidence.probe),
        matrices=matrices,
        mistakes=[] if table is None else worst_mistakes(table, _MISTAKES),
        thumbnail=partial(thumbnail, root),
    )


def _confusions(counts: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The most frequent of the confusions [C, C], in words."""
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    most = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    pairs = [(*divmod(int(at), len(counts)), int(wrong.flat[at])) for at in most]
    return [f"{classes[i]} taken for {classes[j]}: {n}" for i, j, n in pairs if n]


def searched(record: StudyRecord) -> dict[str, str]:
    """What the study searched, by parameter; a single choice is left out."""
    found = {}
    for name, values in searched_values(record.params).items():
        found[name] = (" to " if name in RANGES else ", ").join(short(v) for v in values)
        found[name] += ", log" if name == "learning_rate" else ""
    return found


def ranking(record: StudyRecord, most: int) -> list[tuple]:
    """The best trials, each with its searched values as text and its interval (low, accuracy, high)
    as percentages of one common axis."""
    trials, names = record.ranking[:most], searched(record)
    marks = np.array([np.insert(t.accuracy.interval, 1, t.accuracy.share) for t in trials])
    shares = np.interp(marks, [marks.min(), marks.max()], [0, 100]).round(1).tolist()
    recipes = [[short(trial.recipe.get(name, "")) for name in names] for trial in trials]
    return [(*row, *places) for *row, places in zip(trials, recipes, shares, strict=True)]


def thumbnail(root: Path, path: str, heat: Sequence[Sequence[float]] | None = None) -> str:
    """A `data:` address of an image, `heat` [h, w] laid over it; "" where it cannot be read."""
    try:
        pixels = read_image(root / path, SIDE)
    except (UnreadableImage, OSError):
        return ""
    shown = pixels if heat is None else spotlight(pixels, np.array(heat))
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def short(value: object) -> str:
    """A number with three significant digits; other text as it is."""
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return str(value)
