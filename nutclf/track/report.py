"""What a study's report is drawn from, and where the finished page is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nutclf.track.evaluation import stored_json, stored_predictions
from nutclf.track.runs import Run, file_name
from nutclf.track.store import Store
from nutclf.track.study_records import StudyRecord

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
