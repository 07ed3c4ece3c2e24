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

TEMPERATURES = (0.05, 20.0)
"""Range searched by `fit_temperature`; its ends stand for "always right" and "knows nothing"."""


def fit_temperature(y_prob: np.ndarray, y_true: np.ndarray) -> float:
    """The temperature at which held-out probabilities [N, C] explain class ids [N] best.

    Minimises the mean negative log-likelihood of `apply_temperature` (Guo et al., ICML 2017,
    section 4.2). Fit it on images that the network was neither trained nor will be tested on.

    Returns:
      T within `TEMPERATURES`; above 1 the network was overconfident, below 1 underconfident. Where
      no answer is wrong it is 1: likelihood alone would then sharpen without end.
    """
    if (y_prob.argmax(axis=1) == y_true).all():
        return 1.0

    def loss(log_t: float) -> float:  # over log T, in which halving and doubling are equal steps
        return cross_entropy(apply_temperature(y_prob, math.exp(log_t)), y_true)

    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(best.x)


def reliability_table(y_prob: np.ndarray, y_true: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Confidence against accuracy, in `bins` equal bins (low, high] of the largest probability.

    Empty bins stay and the counts are kept, both of which `sklearn.calibration_curve` drops.

    Returns:
      One row per bin: `low`, `high`, `n` images, how many are `right`, mean `confidence`, and
      `accuracy`; the last two are NaN where n is 0.
    """
    confidence, right = y_prob.max(axis=1), y_prob.argmax(axis=1) == y_true
    edges = np.linspace(0, 1, bins + 1)
    where = np.searchsorted(edges[1:-1], confidence)
    n = np.bincount(where, minlength=bins)
    hits = np.bincount(where, weights=right, minlength=bins).astype(np.int64)
    filled = np.where(n > 0, n, np.nan)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "n": n,
            "right": hits,
            "confidence": np.bincount(where, weights=confidence, minlength=bins) / filled,
            "accuracy": hits / filled,
        }
    )


def expected_calibration_error(y_prob: np.ndarray, y_true: np.ndarray, bins: int = 15) -> float:
    """Mean distance of accuracy from confidence over the bins, weighted by their images, [0, 1].

    Naeini et al., AAAI 2015; 15 equal-width bins as in Guo et al., ICML 2017. Biased upwards where
    bins hold few images: on 50 simulated images a perfectly calibrated network of mean confidence
    0.91 reads 0.07 on average.
    """
    table = reliability_table(y_prob, y_true, bins).dropna()
    distance = (table["accuracy"] - table["confidence"]).abs()
    return float(np.average(distance, weights=table["n"]))


def coverage_threshold(confidence: np.ndarray, coverage: float) -> float:
    """The highest threshold t at which `confidence >= t` still keeps the wanted share of images.

    `confidence` has one value per image, [N], N >= 1; `coverage` is within (0, 1].
    """
    values = np.sort(confidence)[::-1]
    if not 0 < coverage <= 1 or not values.size:
        raise ValueError(f"coverage is {coverage} of {values.size} images; needs (0, 1] of some")
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
    folds every fifth image is one. Out-of-fold probabilities come from models that saw four fifths
    of the images that the final one sees; those of a valid split from the final model itself, whose
    best epoch was picked there. So both are close, and neither is exact.

    Args:
      table: held-out predictions, from `nutclf.evaluate.predictions.prediction_table`; N >= 1.
      classes: in the model's order.
      coverage: least share of these images to be answered, within (0, 1].
    """
    y_prob, (y_true, _) = probabilities(table, classes), labels(table, classes)
    folds = table["fold"].to_numpy() if "fold" in table.columns else np.arange(len(table)) % 5
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
