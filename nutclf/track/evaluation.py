"""How good a model is on some images, written into its run: numbers, matrix, predictions."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from nutclf.evaluate.calibration import Recalibration
from nutclf.evaluate.diagnosis import check_matrix
from nutclf.evaluate.metrics import (
    check_consistent,
    classification_metrics,
    confusion,
    confusion_record,
)
from nutclf.evaluate.predictions import read_predictions, write_predictions
from nutclf.track.runs import Run, write_json

FOLDER = "evaluation"
_PER_EPOCH = ("accuracy", "loss")  # of the valid split, kept by epoch under these names


def metrics_of(split: str, table: pd.DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """Every metric of a table, named for its split: `test_accuracy`, `test_recall/almonds`, ..."""
    metrics = classification_metrics(table, classes)
    left_out = _PER_EPOCH if split == "valid" else ()
    return {f"{split}_{name}": v for name, v in metrics.items() if name not in left_out}


def write_evaluation(
    run: Run, split: str, table: pd.DataFrame, classes: Sequence[str], accuracy: float
) -> dict[str, float]:
    """Logs metrics and the files `evaluation/{confusion_matrix,predictions}_<split>.*`.

    Args:
      run: of the model.
      split: "valid", "cv" or "test".
      table: from `nutclf.evaluate.predictions.prediction_table`.
      classes: in the model's order.
      accuracy: as the network reported it, by another way than the table.

    Returns:
      The metrics that were logged.

    Raises:
      ValueError: the table's confusion matrix contradicts that accuracy, or says that the classes
        are in another order.
    """
    matrix = confusion(table, classes)
    check_consistent(matrix, accuracy)
    run.tags({f"diagnosis_{split}": check_matrix(matrix, classes)})
    metrics = metrics_of(split, table, classes)
    run.metrics(metrics)
    with run.artifacts() as folder:
        _write_files(folder / FOLDER, split, table, classes)
    return metrics


def _write_files(folder: Path, split: str, table: pd.DataFrame, classes: Sequence[str]) -> None:
    from nutclf.evaluate.figures import confusion_figure

    matrix = confusion(table, classes)
    name = f"confusion_matrix_{split}"
    write_json(folder / f"{name}.json", confusion_record(matrix, classes))
    write_predictions(table, folder / f"predictions_{split}.csv")
    right, n = int(matrix.trace()), int(matrix.sum())
    title = f"{split} · {right} of {n} right"
    confusion_figure(matrix, classes, title).savefig(folder / f"{name}.png")


def stored_predictions(run: Run, split: str) -> pd.DataFrame | None:
    """The predictions that a run recorded for a split; None when it has none."""
    with stored_file(run, f"predictions_{split}.csv") as file:
        return None if file is None else read_predictions(file)


def stored_json(run: Run, name: str, folder: str = FOLDER):
    """What a JSON file among a run's artifacts holds; None when it is not there."""
    with stored_file(run, name, folder) as file:
        return None if file is None else json.loads(file.read_text(encoding="utf-8"))


@contextmanager
def stored_file(run: Run, name: str, folder: str = FOLDER) -> Iterator[Path | None]:
    """A file of a run's artifacts, fetched for as long as it is read; None when not there."""
    path = f"{folder}/{name}"
    if path not in {file.path for file in run.client.list_artifacts(run.run_id, folder)}:
        yield None
        return
    with tempfile.TemporaryDirectory() as place:
        yield Path(run.client.download_artifacts(run.run_id, path, place))


def write_calibration(run: Run, split: str, found: Recalibration) -> None:
    """Logs `<split>_ece`, `<split>_ece_calibrated`, `temperature`, `confidence_threshold`, a curve.

    Args:
      run: of the model.
      split: "cv" or "valid", whose predictions it was found on.
      found: the curve `evaluation/calibration_<split>.png` is of its calibrated probabilities.
    """
    from nutclf.evaluate.figures import reliability_figure

    temperature = found.confidence.temperature
    run.metrics(
        {
            f"{split}_ece": found.error_before,
            f"{split}_ece_calibrated": found.error_after,
            "temperature": temperature,
            "confidence_threshold": found.confidence.threshold,
        }
    )
    title = f"{split} · temperature {temperature:.2f} · error {found.error_before:.3f} before"
    with run.artifacts() as folder:
        (folder / FOLDER).mkdir()
        figure = reliability_figure(found.y_prob, found.y_true, title)
        figure.savefig(folder / FOLDER / f"calibration_{split}.png")
