"""Classifiers on frozen features: the floor that fine-tuning has to clear, and linear probes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nutclf.config import BOTH_LINEAR

N_TREES = 300

BASELINES: dict[str, Callable[[int], BaseEstimator]] = {
    "random forest": lambda seed: RandomForestClassifier(N_TREES, random_state=seed, n_jobs=-1),
    "logistic regression": lambda seed: make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=5000, random_state=seed)
    ),
    "majority class": lambda seed: DummyClassifier(strategy="most_frequent"),
}
"""By name, what makes an unfitted classifier from a seed."""

_LINEAR: dict[str, Callable[[], BaseEstimator]] = {
    # Features of several views of an image are alike: that takes strong regularisation.
    "logistic regression": lambda: make_pipeline(
        # A coarse tolerance takes half the time and has as many right.
        StandardScaler(),
        LogisticRegression(C=1e-3, max_iter=1000, tol=1e-3),
    ),
    "discriminant analysis": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
}


@dataclass(frozen=True)
class Probe:
    """A linear model on frozen features, softmax(x @ kernel + bias), and what it says."""

    name: str
    kernel: np.ndarray  # float32 [F, C], fitted to all training images, as is the bias [C]
    bias: np.ndarray
    held_out: np.ndarray | None  # of the training images, by the fits without them, [V, N, C]
    valid: np.ndarray  # of the valid images, [V, M, C]


def fit_probes(
    names: Sequence[str],
    learned: Sequence[np.ndarray],
    labels: np.ndarray,
    folds: np.ndarray | None,
    asked: Sequence[np.ndarray],
    valid: Sequence[np.ndarray],
) -> list[Probe]:
    """Fits some of `nutclf.config.PROBES` to all training images, and to those out of each fold.

    `learned` are features [N, F] of the views that they learn from, of images with class ids
    `labels` [N]; `asked` and `valid` features of the test-time views, [N, F] and [M, F]. `folds`
    [N] says where an image is held out; None: nowhere.
    """
    outside = [] if folds is None else [folds == fold for fold in np.unique(folds)]
    without = [fit_linear(learned, labels, ~out) for out in outside]
    of_all, probes = fit_linear(learned, labels, np.ones(len(labels), bool)), []
    for name in names:
        held_out = None
        if folds is not None:
            held_out = np.empty((len(asked), len(labels), labels.max() + 1), np.float32)
        for out, layers in zip(outside, without, strict=True):
            for view, features in enumerate(asked):
                held_out[view, out] = probabilities(features[out], *layers[name])
        answers = np.stack([probabilities(features, *of_all[name]) for features in valid])
        probes.append(Probe(name, *of_all[name], held_out, answers))
    return probes


def fit_linear(
    learned: Sequence[np.ndarray], labels: np.ndarray, chosen: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each of `PROBES`, fitted to the chosen images, bool [N]."""
    examples = np.concatenate([view[chosen] for view in learned])
    targets = np.tile(labels[chosen], len(learned))
    fitted = {name: as_dense(make().fit(examples, targets)) for name, make in _LINEAR.items()}
    return fitted | {BOTH_LINEAR: _mean_of(list(fitted.values()), examples)}


def _mean_of(
    layers: list[tuple[np.ndarray, np.ndarray]], examples: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The dense layer whose logits are the mean of those of `layers`, brought to one spread.

    Discriminants lie several times as far apart as the logits of a regularised regression: as they
    are, they would answer alone.
    """
    logits = [examples @ kernel + bias for kernel, bias in layers]
    spreads = [(each - each.mean(axis=1, keepdims=True)).std() for each in logits]
    shares = [spreads[0] / max(spread, 1e-9) / len(layers) for spread in spreads]
    kernel, bias = (
        sum(share * layer[part] for share, layer in zip(shares, layers, strict=True))
        for part in (0, 1)
    )
    return kernel.astype(np.float32), bias.astype(np.float32)


def probabilities(features: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """What the layer Dense(C, "softmax") says of features [N, F], float32 [N, C]."""
    return softmax(features @ kernel + bias, axis=1).astype(np.float32)


def as_dense(fitted: BaseEstimator) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [F, C] and bias [C], float32, of the dense softmax layer that says the same."""
    scaler, linear = fitted if hasattr(fitted, "steps") else (None, fitted)
    kernel, bias = linear.coef_.T, linear.intercept_
    if scaler is not None:
        kernel = kernel / scaler.scale_[:, np.newaxis]
        bias = bias - scaler.mean_ @ kernel
    if kernel.shape[1] == 1:  # of two classes scikit-learn keeps the difference
        kernel, bias = (np.concatenate([-part / 2, part / 2], axis=-1) for part in (kernel, bias))
    # What all classes share says nothing, and is most of a discriminant: 32 bits would go to it.
    kernel, bias = kernel - kernel.mean(axis=1, keepdims=True), bias - bias.mean()
    return kernel.astype(np.float32), bias.astype(np.float32)


def judge(
    classifier: BaseEstimator,
    train: tuple[np.ndarray, np.ndarray],
    folds: np.ndarray,
    valid: np.ndarray,
    n_classes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Fits clones of a classifier, one per fold and one on everything.

    `train` is features [N, F] and class ids [N], `folds` where each is held out [N], `valid`
    features [M, F]. Returns the probabilities of the valid images, [M, C], and of the training
    images, each from the fit that held it out, [N, C]. A class without training images gets 0.
    """
    features, labels = train
    held_out, of_valid = np.zeros((len(labels), n_classes)), np.zeros((len(valid), n_classes))
    present = np.unique(labels)
    held_out[:, present] = cross_val_predict(
        classifier, features, labels, cv=PredefinedSplit(folds), method="predict_proba"
    )
    of_valid[:, present] = clone(classifier).fit(features, labels).predict_proba(valid)
    return of_valid, held_out
