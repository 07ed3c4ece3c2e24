"""Classical classifiers on frozen features: the floor that fine-tuning has to clear."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

N_TREES = 300
MAX_ITERATIONS = 5000
"""L-BFGS on 1280 standardised features ends long before; a fit that does not would warn."""


def _random_forest(seed: int) -> BaseEstimator:
    return RandomForestClassifier(N_TREES, random_state=seed, n_jobs=-1)


def _logistic_regression(seed: int) -> BaseEstimator:
    regression = LogisticRegression(max_iter=MAX_ITERATIONS, random_state=seed)
    return make_pipeline(StandardScaler(), regression)


def _majority_class(seed: int) -> BaseEstimator:
    return DummyClassifier(strategy="most_frequent", random_state=seed)


BASELINES: Mapping[str, Callable[[int], BaseEstimator]] = MappingProxyType(
    {
        "random forest": _random_forest,
        "logistic regression": _logistic_regression,
        "majority class": _majority_class,
    }
)
"""By name, what makes an unfitted classifier from a seed."""


@dataclass(frozen=True)
class Judged:
    """What a classifier says of images that it did not learn from.

    Attributes:
      valid: probabilities of the valid images, from a fit on all training images, [M, C].
      held_out: probabilities of the training images, each from the fit that held it out, [N, C].
    """

    valid: np.ndarray
    held_out: np.ndarray


def judge(
    classifier: BaseEstimator,
    train: tuple[np.ndarray, np.ndarray],
    folds: np.ndarray,
    valid: np.ndarray,
    n_classes: int,
) -> Judged:
    """Fits a classifier once a fold and once on everything.

    Args:
      classifier: with `predict_proba`; it stays unfitted, each fit is of a clone.
      train: features [N, F] and class ids int [N].
      folds: in which each training image is held out, int [N], 0..k-1.
      valid: features [M, F].
      n_classes: C; a class that a fold's training images lack gets probability 0.
    """
    features, labels = train
    held_out = np.zeros((len(labels), n_classes))
    for fold in range(folds.max() + 1):
        out = folds == fold
        fitted = clone(classifier).fit(features[~out], labels[~out])
        held_out[out] = _probabilities(fitted, features[out], n_classes)
    fitted = clone(classifier).fit(features, labels)
    return Judged(_probabilities(fitted, valid, n_classes), held_out)


def _probabilities(fitted: BaseEstimator, features: np.ndarray, n_classes: int) -> np.ndarray:
    """scikit-learn has a column for each class that it saw, not for each there is."""
    y_prob = np.zeros((len(features), n_classes))
    y_prob[:, fitted.classes_] = fitted.predict_proba(features)
    return y_prob
