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
      T within `TEMPERATURES`; above 1 the network was too sure of itself, below 1 too shy.
    """
    prob, truth = _checked(y_prob, y_true)

    def loss(log_t: float) -> float:  # over log T, in which halving and doubling are equal steps
        return cross_entropy(apply_temperature(prob, math.exp(log_t)), truth)

    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(best.x)


def reliability_table(y_prob: np.ndarray, y_true: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Confidence against accuracy, in `bins` equal bins (low, high] of the largest probability.

    Returns:
      One row a bin: `low`, `high`, `n` images, how many are `right`, mean `confidence`, and
      `accuracy`; the last two are NaN where n is 0.
    """
    prob, truth = _checked(y_prob, y_true)
    if bins < 1:
        raise ValueError(f"bins is {bins}; it must be 1 or more")
    confidence, right = prob.max(axis=1), prob.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
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

    Args:
      confidence: one value an image, [N], N >= 1.
      coverage: least share to keep, within (0, 1]; ties at t may keep more.

    Raises:
      ValueError: no images, or coverage outside its range.
    """
    values = np.sort(np.asarray(confidence, dtype=np.float64))[::-1]
    if not values.size or not 0 < coverage <= 1 or np.isnan(values).any():
        raise ValueError(
            f"coverage is {coverage} of {values.size} images; needs (0, 1] of 1 or more, no NaN"
        )
    kept = math.ceil(coverage * values.size - 1e-9)  # 0.07 * 100 is 7.000000000000001
    return float(values[max(kept, 1) - 1])


def _checked(y_prob: np.ndarray, y_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prob, truth = np.asarray(y_prob, dtype=np.float64), np.asarray(y_true)
    if prob.ndim != 2 or truth.shape != prob.shape[:1] or not truth.size:
        raise ValueError(
            f"y_prob is {list(prob.shape)} and y_true {list(truth.shape)}; [N, C] and [N] needed"
        )
    return prob, truth


_PARTS = 5  # of a table without folds, to judge a temperature on images that it was not fitted on


@dataclass(frozen=True)
class Recalibration:
    """How to read a model's probabilities, and how true they are then.

    Attributes:
      confidence: temperature and threshold, from all held-out images.
      y_prob: held-out probabilities [N, C], each image's by a temperature fitted on the others.
      y_true: class ids [N].
      error_before: expected calibration error of the probabilities as they came, [0, 1].
      error_after: of `y_prob`.
    """

    confidence: Confidence
    y_prob: np.ndarray
    y_true: np.ndarray
    error_before: float
    error_after: float


def recalibrate(table: pd.DataFrame, classes: Sequence[str], coverage: float) -> Recalibration:
    """Fits a temperature, and the threshold at which a share of the images is still answered.

    The error afterwards is judged fold by fold with the temperature of the other folds; without
    folds every fifth image is one. Out-of-fold probabilities come from models that saw four fifths
    of the images that the final one sees; those of a valid split from the final model itself, whose
    best epoch was picked there. So both are close, and neither is exact.

    Args:
      table: held-out predictions, from `nutclf.evaluate.predictions.prediction_table`; N >= 1.
      classes: in the model's order.
      coverage: least share of these images that shall be answered, within (0, 1].
    """
    y_prob, (y_true, _) = probabilities(table, classes), labels(table, classes)
    parts = np.arange(len(table)) % _PARTS
    folds = table["fold"].to_numpy() if "fold" in table.columns else parts
    crossed = np.empty_like(y_prob)
    for fold in np.unique(folds):
        others = folds != fold
        temperature = _temperature(y_prob[others], y_true[others])
        crossed[~others] = apply_temperature(y_prob[~others], temperature)
    temperature = _temperature(y_prob, y_true)
    calibrated = apply_temperature(y_prob, temperature)
    threshold = coverage_threshold(calibrated.max(axis=1), coverage)
    return Recalibration(
        Confidence(temperature, threshold, coverage),
        crossed,
        y_true,
        expected_calibration_error(y_prob, y_true),
        expected_calibration_error(crossed, y_true),
    )


def _temperature(y_prob: np.ndarray, y_true: np.ndarray) -> float:
    """1 where no answer is wrong: likelihood alone would then say "always sure"."""
    if (y_prob.argmax(axis=1) == y_true).all():
        return 1.0
    return fit_temperature(y_prob, y_true)
