"""A model's temperature and threshold, from images that it was not trained on; and what they do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nutclf.evaluate.calibration import (
    coverage_threshold,
    expected_calibration_error,
    fit_temperature,
)
from nutclf.evaluate.predictions import labels, probabilities
from nutclf.evaluate.temperature import Confidence, apply_temperature

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
