"""What a trial leaves in its run: settings, folds, the last fit, the model."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nutclf.config import COVERAGE, PLAIN, Ensemble, Recipe, StudyConfig
from nutclf.evaluate.baselines import Probe
from nutclf.evaluate.calibration import recalibrate
from nutclf.evaluate.metrics import classification_metrics
from nutclf.evaluate.predictions import classes_of
from nutclf.track.evaluation import FOLDER, write_calibration, write_evaluation
from nutclf.track.models import log_model
from nutclf.track.runs import DataRecord, Run, write_json
from nutclf.train.jobs import Assembled
from nutclf.train.learner import History


def describe(recipe: Recipe) -> str:
    """A recipe in a few words: what its run is called."""
    return f"{recipe.n_unfrozen} unfrozen · {recipe.lr_schedule}"


def flatten(fields: Mapping) -> dict[str, object]:
    """Nested dicts as one, with dotted keys."""
    return pd.json_normalize(fields).to_dict("records")[0]


def log_settings(
    run: Run, config: StudyConfig, recipe: Recipe, data: DataRecord, seed: int
) -> None:
    """The recipe and the data; the whole study is in `config.json`, and on the study's run."""
    study = flatten(dataclasses.asdict(config))
    run.params(dataclasses.asdict(recipe) | {"backbone": config.backbone, "seed": seed})
    run.data(data)
    with run.artifacts() as folder:
        write_json(folder / "config.json", {"recipe": vars(recipe), "study": study})


def log_probe(run: Run, config: StudyConfig, probe: Probe, data: DataRecord) -> None:
    """What a probe is, as parameters."""
    facts = {"probe": probe.name, "n_features": len(probe.kernel), "backbone": config.backbone}
    run.params(facts | {"seed": config.seed})
    run.data(data)


def log_epochs(run: Run, epochs: Mapping[int, Mapping[str, float]], prefix: str = "") -> None:
    """Figures of epochs, 1-based, each under its own name after the prefix."""
    for epoch, figures in epochs.items():
        run.metrics({f"{prefix}{name}": value for name, value in figures.items()}, step=epoch)


def log_mean_of_folds(run: Run, histories: Sequence[History]) -> None:
    """The folds' mean under the plain names, for a run without a fit on the whole split."""
    folds = pd.concat([pd.DataFrame(history.epochs) for history in histories])
    mean = folds.groupby(level=0).mean()
    log_epochs(run, {epoch + 1: dict(row) for epoch, row in mean.iterrows()})


def log_cross_validation(
    run: Run, table: pd.DataFrame, classes: Sequence[str], accuracies: Sequence[float]
) -> dict[str, float]:
    """Logs out-of-fold predictions, and returns the metrics of `write_evaluation` with the spread.

    `table` has the fold of each image, `accuracies` what was counted when each fold was done;
    `cv_accuracy_std` is their sample standard deviation.
    """
    for fold, accuracy in enumerate(accuracies, start=1):
        run.metrics({"fold_accuracy": accuracy}, step=fold)
    spread = {"cv_accuracy_std": float(np.std(accuracies, ddof=1))}
    run.metrics(spread)
    together = float(np.average(accuracies, weights=table["fold"].value_counts().sort_index()))
    return write_evaluation(run, "cv", table, classes, together) | spread


def log_best(
    run: Run,
    history: History | None,
    valid: pd.DataFrame | None = None,
    ensemble: Ensemble = PLAIN,
) -> dict[str, float]:
    """The kept epoch, if there are epochs, and how well the valid images are answered, `best_*`.

    A model that is no plain network answers them otherwise than the epoch did: as `valid` says.
    """
    if history is not None and ensemble == PLAIN:
        figures = history.best
    else:
        measured = classification_metrics(valid, classes_of(valid))
        figures = {f"valid_{name}": measured[name] for name in ("loss", "accuracy")}
    metrics = {f"best_{name}": figures[name] for name in ("valid_loss", "valid_accuracy")}
    metrics |= {"best_epoch": history.best_epoch} if history else {}
    run.metrics(metrics)
    return metrics


def log_curves(run: Run, history: History) -> None:
    """Learning curves, as a figure."""
    from nutclf.evaluate.figures import learning_curves

    epochs = pd.DataFrame(history.epochs)
    epochs.insert(0, "epoch", range(1, len(epochs) + 1))
    run.picture(learning_curves(epochs, history.best_epoch), f"{FOLDER}/learning_curves.png")


def log_model_of(
    run: Run,
    assembled: Assembled,
    valid: pd.DataFrame,
    out_of_fold: pd.DataFrame | None,
    metadata: Mapping[str, object],
) -> None:
    """The model, with its evaluation on the valid split and its calibration.

    `valid` and `out_of_fold` are tables of predictions. The temperature is that of the latter where
    there are any: they are many more, and no epoch was chosen by them.
    """
    classes = metadata["classes"]
    write_evaluation(run, "valid", valid, classes, assembled.accuracy)
    run.metrics({"answers_per_second": assembled.answers_per_second})
    split, held_out = ("valid", valid) if out_of_fold is None else ("cv", out_of_fold)
    found = recalibrate(held_out, classes, COVERAGE)
    write_calibration(run, split, found)
    known = dict(metadata) | vars(found.confidence)
    log_model(run, assembled.keras_file, known, assembled.familiarity)
