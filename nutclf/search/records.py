"""What a fit leaves in its run, whether it was a trial of the search or one seed of its winner."""

import dataclasses

import pandas as pd

from nutclf.config import COVERAGE, Recipe, StudyConfig
from nutclf.evaluate.calibration import recalibrate
from nutclf.evaluate.predictions import prediction_table
from nutclf.model.network import HEAD_LAYERS, parameter_counts
from nutclf.process import n_threads
from nutclf.search.scoring import Score
from nutclf.search.study import flatten
from nutclf.track.evaluation import FOLDER, write_calibration, write_evaluation
from nutclf.track.models import log_model
from nutclf.track.runs import DataRecord, Run, write_json
from nutclf.train.learner import Learner
from nutclf.train.workbench import Workbench


def describe(recipe: Recipe) -> str:
    """A recipe in a few words: what its run is called."""
    return f"{recipe.n_unfrozen} unfrozen · {recipe.lr_schedule}"


def record_settings(
    run: Run, config: StudyConfig, recipe: Recipe, data: DataRecord, seed: int
) -> None:
    """The recipe, the whole study and the data, as parameters and as a file."""
    study = flatten(dataclasses.asdict(config))
    run.params(dataclasses.asdict(recipe) | {"backbone": config.backbone, "seed": seed})
    run.params({f"study.{key}": value for key, value in study.items()})
    run.data(data)
    with run.artifacts() as folder:
        write_json(folder / "config.json", {"recipe": vars(recipe), "study": study})


def record_sizes(run: Run, bench: Workbench, learner: Learner) -> None:
    """How many numbers train, how many there are, whose weights, and what computes.

    The number of threads changes results by rounding: sums are taken in another order.
    """
    counts = parameter_counts(learner.tail)
    head = sum(learner.tail.get_layer(name).count_params() for name in HEAD_LAYERS)
    run.params(
        {
            "trainable_parameters": counts["trainable"],
            "total_parameters": bench.backbone.model.count_params() + head,
            "weights": bench.backbone.origin,
            "weights_digest": bench.backbone.digest,
            "threads": n_threads(),
        }
    )


def record_fit(
    run: Run, bench: Workbench, data: DataRecord, learner: Learner, score: Score
) -> None:
    """Predictions, matrix and figures of the valid split, learning curves, calibration, the model.

    The temperature is that of the out-of-fold predictions where there are any: they are many more,
    and no epoch was picked by them.
    """
    from nutclf.evaluate.figures import learning_curves

    history, valid, classes = score.history, bench.splits["valid"], bench.classes
    whole, y_prob = bench.assemble(learner)
    table = prediction_table(valid.paths, valid.labels, y_prob, classes)
    write_evaluation(run, "valid", table, classes, history.best["valid_accuracy"])
    epochs = pd.DataFrame(history.epochs)
    epochs.insert(0, "epoch", range(1, len(epochs) + 1))
    with run.artifacts() as folder:
        (folder / FOLDER).mkdir()
        figure = learning_curves(epochs, history.best_epoch)
        figure.savefig(folder / FOLDER / "learning_curves.png")
    split, held_out = ("valid", table) if score.out_of_fold is None else ("cv", score.out_of_fold)
    found = recalibrate(held_out, classes, COVERAGE)
    write_calibration(run, split, found)
    log_model(run, whole, _metadata(bench, data) | vars(found.confidence))


def _metadata(bench: Workbench, data: DataRecord) -> dict[str, object]:
    """What a person needs beside the model; the class order is read from here only."""
    return {
        "classes": list(bench.classes),
        "image_size": bench.backbone.spec.image_size,
        "pixels": "RGB, 0 to 255, uint8 or float, [B, H, W, 3]",
        "backbone": bench.backbone.spec.name,
        "data_fingerprint": data.fingerprint,
        "data_source": data.kind,
    }
