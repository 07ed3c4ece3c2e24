"""A recipe's score by the study's objective: cross-validated, or on the valid split."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from nutclf.config import Objective
from nutclf.search.crossval import CrossValidated, Report, cross_validate
from nutclf.track.evaluation import write_evaluation
from nutclf.track.runs import Run
from nutclf.train.learner import History, Learner, OnEpoch
from nutclf.train.workbench import Fitted, Workbench


@dataclass
class Spent:
    """Seconds that went into features and into training."""

    features: float = 0.0
    training: float = 0.0

    def add(self, part: Fitted | CrossValidated) -> None:
        """Counts one part of the work."""
        self.features += part.seconds_features
        self.training += part.seconds_train


@dataclass(frozen=True)
class Watch:
    """Who hears of the score while it is made; what they raise ends it.

    Attributes:
      fold: takes a fold and the accuracy of each of its blocks.
      epoch: takes an epoch and its figures, of the fit on the whole training split.
    """

    fold: Report = lambda fold, blocks: None
    epoch: OnEpoch = lambda epoch, figures: None


@dataclass
class Score:
    """What was found.

    Attributes:
      metrics: of the whole trial, the objective's among them.
      spent: seconds.
      history: of the fit on the whole training split; None where there was none.
      out_of_fold: predictions of the training split; None where it was not cross-validated.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    history: History | None = None
    out_of_fold: pd.DataFrame | None = None


def cross_validated_score(
    run: Run, bench: Workbench, learner: Learner, folds: np.ndarray, report: Report
) -> Score:
    """Cross-validates, and records the out-of-fold predictions in `run`.

    Returns:
      A score whose metrics are `cv_accuracy`, `cv_accuracy_std` (sample standard deviation over
      folds), `cv_loss`, `cv_macro_f1` and the others of `write_evaluation`.
    """
    found = cross_validate(bench, learner, folds, report)
    score = Score(out_of_fold=found.table)
    score.spent.add(found)
    for fold, accuracy in enumerate(found.fold_accuracies, start=1):
        run.metrics({"fold_accuracy": accuracy}, step=fold)
    spread = {"cv_accuracy_std": float(np.std(found.fold_accuracies, ddof=1))}
    run.metrics(spread)
    logged = write_evaluation(run, "cv", found.table, bench.classes, found.accuracy)
    score.metrics |= logged | spread
    return score


def full_score(
    run: Run,
    bench: Workbench,
    learner: Learner,
    objective: Objective,
    folds: np.ndarray | None,
    watch: Watch,
) -> Score:
    """Scores by the objective, then leaves `learner` fitted on the whole training split."""
    score = Score()
    if objective.cross_validated:
        score = cross_validated_score(run, bench, learner, folds, watch.fold)
    fitted = bench.fit(learner, on_epoch=watch.epoch)
    score.spent.add(fitted)
    score.history, best = fitted.history, fitted.history.best
    own = {"best_valid_loss": best["valid_loss"], "best_valid_accuracy": best["valid_accuracy"]}
    own |= {"best_epoch": fitted.history.best_epoch}
    run.metrics(own)
    score.metrics |= own
    return score
