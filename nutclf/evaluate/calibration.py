"""Whether "90% sure" is right nine times in ten, and how to make it so without another training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from nutclf.evaluate.metrics import cross_entropy
from nutclf.evaluate.predictions import labels, probabilities
from nutclf.evaluate.temperature import Confidence, apply_temperature


def fit_temperature(y_prob: np.ndarray, y_true: np.ndarray) -> float:
    """The temperature, 0.05 to 20, at which held-out probabilities [N, C] explain ids [N] best.

    By the mean negative log-likelihood (Guo et al., ICML 2017, section 4.2). Above 1 the network
    was overconfident, below 1 underconfident.
    """
    if (y_prob.argmax(axis=1) == y_true).all():
        return 1.0  # likelihood alone would sharpen without end

    def loss(log_t: float) -> float:  # over log T, in which halving and doubling are equal steps
        return cross_entropy(apply_temperature(y_prob, math.exp(log_t)), y_true)

    bounds = (math.log(0.05), math.log(20))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(best.x)


def reliability_table(y_prob: np.ndarray, y_true: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Confidence against accuracy, in `bins` equal bins (low, high] of the largest probability.

    One row per bin: `low`, `n` images, how many are `right`, mean `confidence` and `accuracy`; the
    last two are NaN where n is 0. `sklearn.calibration_curve` drops empty bins and the counts.
    """
    edges = np.linspace(0, 1, bins + 1)
    confidence, right = y_prob.max(axis=1), y_prob.argmax(axis=1) == y_true
    images = pd.DataFrame({"confidence": confidence, "right": right})
    by_bin = images.groupby(np.searchsorted(edges[1:-1], confidence))
    table = by_bin.mean().rename(columns={"right": "accuracy"}).reindex(range(bins))
    counts = by_bin["right"].agg(n="size", right="sum").reindex(range(bins), fill_value=0)
    return table.join(counts).assign(low=edges[:-1])


def expected_calibration_error(y_prob: np.ndarray, y_true: np.ndarray, bins: int = 15) -> float:
    """Mean distance of accuracy from confidence over the bins, weighted by their images, [0, 1].

    Naeini et al., AAAI 2015; 15 bins as in Guo et al., ICML 2017. Biased upwards where bins hold
    few images: on 50 images a perfectly calibrated network may read 0.07.
    """
    table = reliability_table(y_prob, y_true, bins).dropna()
    distance = (table["accuracy"] - table["confidence"]).abs()
    return float(np.average(distance, weights=table["n"]))


def coverage_threshold(confidence: np.ndarray, coverage: float) -> float:
    """The highest t at which `confidence >= t` still keeps a share of the images, within (0, 1]."""
    values = np.sort(confidence)[::-1]
    kept = math.ceil(coverage * values.size - 1e-9)  # 0.07 * 100 is 7.000000000000001
    return float(values[max(kept, 1) - 1])


@dataclass(frozen=True)
class Recalibration:
    """How to read a model's probabilities, and how well calibrated they are then."""

    confidence: Confidence  # from all held-out images
    y_prob: np.ndarray  # held out, [N, C]; each image's by a temperature fitted on the others
    y_true: np.ndarray  # class ids [N]
    error_before: float  # expected calibration error of the raw probabilities, [0, 1]
    error_after: float  # of `y_prob`


def recalibrate(table: pd.DataFrame, classes: Sequence[str], coverage: float) -> Recalibration:
    """Fits a temperature, and the threshold at which a share of the images is still answered.

    The error afterwards is measured fold by fold with the temperature of the other folds; without
    folds every fifth image is one. Neither is exact for the final model: out-of-fold probabilities
    come from models of four fifths of its images, and its best epoch was picked on the valid split.
    """
    y_prob, (y_true, _) = probabilities(table, classes), labels(table, classes)
    folds = table.get("fold", pd.Series(np.arange(len(table)) % 5)).to_numpy()
    crossed = np.empty_like(y_prob)
    for fold in np.unique(folds):
        others = folds != fold
        temperature = fit_temperature(y_prob[others], y_true[others])
        crossed[~others] = apply_temperature(y_prob[~others], temperature)
    temperature = fit_temperature(y_prob, y_true)
    sure = apply_temperature(y_prob, temperature).max(axis=1)
    return Recalibration(
        Confidence(temperature, coverage_threshold(sure, coverage), coverage),
        crossed,
        y_true,
        expected_calibration_error(y_prob, y_true),
        expected_calibration_error(crossed, y_true),
    )
