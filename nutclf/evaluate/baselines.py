"""Classical classifiers on frozen features: the floor that fine-tuning has to clear."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

N_TREES = 300

BASELINES: dict[str, Callable[[int], BaseEstimator]] = {
    "random forest": lambda seed: RandomForestClassifier(N_TREES, random_state=seed, n_jobs=-1),
    "logistic regression": lambda seed: make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=5000, random_state=seed)
    ),
    "majority class": lambda seed: DummyClassifier(strategy="most_frequent"),
}
"""By name, what makes an unfitted classifier from a seed."""


@dataclass(frozen=True)
class Judged:
    """Probabilities that a classifier gives images that it did not learn from."""

    valid: np.ndarray  # of the valid images, from a fit on all training images, [M, C]
    held_out: np.ndarray  # of the training images, each from the fit that held it out, [N, C]


def judge(
    classifier: BaseEstimator,
    train: tuple[np.ndarray, np.ndarray],
    folds: np.ndarray,
    valid: np.ndarray,
    n_classes: int,
) -> Judged:
    """Fits clones of a classifier, one per fold and one on everything.

    `train` is features [N, F] and class ids [N], `folds` where each is held out [N], `valid`
    features [M, F]. A class that the training images lack gets probability 0.
    """
    features, labels = train
    held_out, of_valid = np.zeros((len(labels), n_classes)), np.zeros((len(valid), n_classes))
    present = np.unique(labels)
    held_out[:, present] = cross_val_predict(
        classifier, features, labels, cv=PredefinedSplit(folds), method="predict_proba"
    )
    of_valid[:, present] = clone(classifier).fit(features, labels).predict_proba(valid)
    return Judged(of_valid, held_out)
