"""Cross-validation of a recipe: each training image judged by a model that never saw it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nutclf.evaluate.predictions import prediction_table
from nutclf.train.learner import Learner
from nutclf.train.workbench import Workbench

BLOCKS_PER_FOLD = 8
"""Scores that a fold reports for pruning: the accuracy of each of its eight blocks of images. Five
fold scores alone cannot tell two recipes apart: Wilcoxon's smallest p for 2 pairs is 0.25, for 8
pairs 0.004."""

Report = Callable[[int, list[float]], None]
"""Takes a fold, and the accuracy of each of its blocks; what it raises ends the trial."""


@dataclass(frozen=True)
class CrossValidated:
    """What cross-validation found.

    Attributes:
      table: out-of-fold predictions of the whole train split, with the fold of each image.
      fold_accuracies: one a fold.
      seconds_features, seconds_train: spent over all folds.
    """

    table: pd.DataFrame
    fold_accuracies: list[float]
    seconds_features: float
    seconds_train: float

    @property
    def accuracy(self) -> float:
        """Share of the training images that were right when held out, by the folds' own counts."""
        sizes = self.table["fold"].value_counts().sort_index()
        return float(np.average(self.fold_accuracies, weights=sizes))


def cross_validate(
    bench: Workbench, learner: Learner, folds: np.ndarray, report: Report
) -> CrossValidated:
    """Fits the learner once a fold, and predicts the images that the fold holds out.

    Each fit is the procedure that the final model goes through: the last epoch is kept, and of the
    valid split only a plateau is judged. The held-out images take no part in it.

    Args:
      bench: of the study.
      learner: of the recipe.
      folds: in which each training image is held out, int [N], 0..k-1.
      report: hears of each fold as soon as it is done.
    """
    train = bench.splits["train"]
    y_prob = np.zeros((len(folds), len(bench.classes)), np.float32)
    accuracies, features, training = [], 0.0, 0.0
    for fold in range(folds.max() + 1):
        held_out = np.flatnonzero(folds == fold)
        fitted = bench.fit(learner, np.flatnonzero(folds != fold))
        features += fitted.seconds_features
        training += fitted.seconds_train
        y_prob[held_out] = bench.predict(learner, "train", held_out)
        right = y_prob[held_out].argmax(axis=1) == train.labels[held_out]
        accuracies.append(float(right.mean()))
        blocks = np.array_split(right, min(BLOCKS_PER_FOLD, len(right)))
        report(fold, [float(block.mean()) for block in blocks])
    table = prediction_table(train.paths, train.labels, y_prob, bench.classes, folds)
    return CrossValidated(table, accuracies, features, training)
