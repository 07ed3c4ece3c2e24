"""Rungs beyond the published seven: classical classifiers on the same frozen pooled features."""

from dataclasses import dataclass

import numpy as np

from nutclf.evaluate.baselines import BASELINES, judge
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.predictions import prediction_table
from nutclf.search.rows import Row
from nutclf.track.evaluation import write_evaluation
from nutclf.track.runs import Run
from nutclf.train.views import UNTOUCHED
from nutclf.train.workbench import Workbench

FIRST_NUMBER = 8
NO_FOLDS = (
    "The ladder's baselines are cross-validated, and these data cannot be: {}. Add images to that "
    "class, or leave it out of every split."
)


@dataclass(frozen=True)
class Vectors:
    """What the baselines learn from: pooled features of untouched images, float32 [N, C]."""

    train: np.ndarray
    valid: np.ndarray


def pooled_vectors(bench: Workbench, pool: int) -> Vectors:
    """Features of both splits at the pooling.

    Args:
      bench: with the images.
      pool: the cut that is the pooling, where a tail with nothing unfrozen begins.
    """
    splits = {
        split: bench.features(split, pool).batch(UNTOUCHED, np.arange(len(images.labels)))
        for split, images in bench.splits.items()
    }
    return Vectors(splits["train"], splits["valid"])


def run_baseline(
    run: Run, number: int, name: str, bench: Workbench, vectors: Vectors, folds: np.ndarray
) -> list[Row]:
    """Fits a baseline, records it in `run`, and gives its lines of the table.

    Args:
      run: of the rung.
      number: of the rung.
      name: a key of `BASELINES`.
      bench: with the images.
      vectors: from `pooled_vectors`.
      folds: from `nutclf.search.session.make_folds`.
    """
    train, valid, classes = bench.splits["train"], bench.splits["valid"], bench.classes
    seed = bench.config.seed
    run.params({"model": name, "seed": seed, "backbone": bench.config.backbone})
    run.params({"features": "pooled", "n_features": vectors.train.shape[1]})
    learned_from = vectors.train, train.labels
    judged = judge(BASELINES[name](seed), learned_from, folds, vectors.valid, len(classes))
    rows = []
    for split, images, y_prob, of_folds in (
        ("valid", valid, judged.valid, None),
        ("cv", train, judged.held_out, folds),
    ):
        table = prediction_table(images.paths, images.labels, y_prob, classes, of_folds)
        right = int(np.sum(y_prob.argmax(axis=1) == images.labels))
        rate = Rate(right, len(images.labels))
        write_evaluation(run, split, table, classes, rate.share)
        # `write_evaluation` leaves the valid accuracy to the epochs; here there are none.
        run.metrics({f"{split}_accuracy": rate.share})
        label = "valid accuracy" if split == "valid" else f"{folds.max() + 1}-fold accuracy"
        title = f"{name} on frozen features"
        rows.append(Row(number, title, label, "", f"{rate.share:.3f}", rate))
    return rows
