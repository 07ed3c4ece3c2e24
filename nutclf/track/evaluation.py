"""How good a model is on some images, written into its run: numbers, matrix, predictions."""

import csv
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from nutclf.evaluate import metrics as measure
from nutclf.evaluate.calibration import Recalibration
from nutclf.evaluate.predictions import read_predictions, write_predictions
from nutclf.track.runs import Run, write_json

FOLDER = "evaluation"
MAX_CLASSES = 50  # above it, metrics by class are a table and no metrics of the run


def metrics_of(split: str, table: pd.DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """Every metric of a table, named for its split: `test_accuracy`, `test_recall/almonds`, ...

    Of more than `MAX_CLASSES` classes those by class are left out.
    """
    metrics = measure.classification_metrics(table, classes)
    left_out = ("accuracy", "loss") if split == "valid" else ()  # logged by epoch as valid_*
    left_out += tuple(name for name in metrics if "/" in name and len(classes) > MAX_CLASSES)
    return {f"{split}_{name}": v for name, v in metrics.items() if name not in left_out}


def write_evaluation(
    run: Run, split: str, table: pd.DataFrame, classes: Sequence[str], accuracy: float
) -> dict[str, float]:
    """Logs and returns the metrics; logs `evaluation/{confusion_matrix,predictions}_<split>.*`.

    Raises `ValueError` when the table contradicts the accuracy that the network reported by another
    way, or says that the classes are in another order.
    """
    from nutclf.evaluate.figures import confusion_figure

    matrix = measure.confusion(table, classes)
    measure.check_consistent(matrix, accuracy)
    run.tags({f"diagnosis_{split}": measure.check_matrix(matrix, classes)})
    metrics = metrics_of(split, table, classes)
    run.metrics(metrics)
    title = f"{split} · {matrix.trace()} of {matrix.sum()} right"
    with run.artifacts() as root:
        folder, name = root / FOLDER, f"confusion_matrix_{split}"
        write_json(folder / f"{name}.json", measure.confusion_record(matrix, classes))
        write_predictions(table, folder / f"predictions_{split}.csv")
        if len(classes) > MAX_CLASSES:
            by_class = measure.by_class(table, classes)
            by_class.to_csv(folder / f"by_class_{split}.csv", quoting=csv.QUOTE_NONNUMERIC)
    run.picture(confusion_figure(matrix, classes, title), f"{FOLDER}/{name}.png")
    return metrics


def write_calibration(run: Run, split: str, found: Recalibration) -> None:
    """Logs errors before and after, temperature, threshold and curve; found on "cv" or "valid"."""
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
    figure = reliability_figure(found.y_prob, found.y_true, title)
    run.picture(figure, f"{FOLDER}/calibration_{split}.png")


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
