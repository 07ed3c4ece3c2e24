"""Calibration measured, and mended from held-out predictions."""

import numpy as np
import pytest
from scipy.special import softmax

from nutclf.evaluate.calibration import (
    coverage_threshold,
    expected_calibration_error,
    fit_temperature,
    recalibrate,
    reliability_table,
)
from nutclf.evaluate.predictions import prediction_table
from nutclf.evaluate.temperature import Confidence, apply_temperature

CLASSES = ["almonds", "brazil nuts", "cashews", "pecans"]


def held_out(n, spoilt_by, folds=None):
    """Predictions whose calibrated probabilities are known, spoilt by one temperature per image."""
    rng = np.random.default_rng(0)
    honest = softmax(rng.normal(scale=2, size=(n, 4)), axis=1)
    y_true = (rng.random(n)[:, None] > honest.cumsum(axis=1)).sum(axis=1)
    pairs = zip(honest, np.broadcast_to(spoilt_by, n), strict=True)
    y_prob = np.stack([apply_temperature(prob[None], t)[0] for prob, t in pairs])
    table = prediction_table([f"{i}.jpg" for i in range(n)], y_true, y_prob, CLASSES, folds)
    return table, y_prob, y_true


@pytest.mark.parametrize("spoilt_by", [0.5, 1.0, 2.0])
def test_the_temperature_that_spoilt_the_probabilities_is_found_again(spoilt_by):
    _, y_prob, y_true = held_out(4000, spoilt_by)
    best = fit_temperature(y_prob, y_true)
    assert best == pytest.approx(1 / spoilt_by, rel=0.06)
    assert (apply_temperature(y_prob, best).argmax(axis=1) == y_prob.argmax(axis=1)).all()


def test_fitting_two_classes_by_hand():
    # Ten images at 0.9, eight right: the best confidence is 0.8, so T = logit(0.9) / logit(0.8).
    prob = np.tile([0.9, 0.1], (10, 1))
    y_true = np.array([0] * 8 + [1] * 2)
    assert fit_temperature(prob, y_true) == pytest.approx(np.log(9) / np.log(4), rel=1e-4)


def test_temperature_one_changes_nothing_a_high_one_flattens_and_certainty_stays_finite():
    prob = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(apply_temperature(prob, 1), prob, atol=3e-7)
    np.testing.assert_allclose(apply_temperature(prob, 1e6), 1 / 3, atol=1e-4)
    assert np.isfinite(apply_temperature(prob, 0.01)).all()


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf])
def test_an_impossible_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        apply_temperature([[0.5, 0.5]], temperature)


def confident(values, right):
    """Two-class probabilities with the given confidences, right or wrong as given."""
    values = np.asarray(values)
    return np.stack([values, 1 - values], axis=1), np.where(right, 0, 1)


def test_calibration_error_by_hand():
    # Bin (0.8, 1.0]: mean confidence 0.9, 2 of 4 right; bin (0.4, 0.6]: 0.6, 1 of 1 right.
    prob, y_true = confident([0.9, 0.9, 0.85, 0.95, 0.6], [1, 1, 0, 0, 1])
    assert expected_calibration_error(prob, y_true, bins=5) == pytest.approx((4 * 0.4 + 0.4) / 5)


def test_reliability_table_keeps_empty_bins_and_closes_them_above():
    prob, y_true = confident([0.5, 0.75, 1.0], [1, 0, 1])  # exact in floats, each on an edge
    table = reliability_table(prob, y_true, bins=4)
    assert table["n"].tolist() == [0, 1, 1, 1]
    assert table["right"].tolist() == [0, 1, 0, 1]
    assert table["accuracy"].isna().tolist() == [True, False, False, False]
    assert table["confidence"].tolist()[1:] == [0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("coverage", "threshold"), [(1.0, 0.2), (0.8, 0.4), (0.79, 0.4), (0.61, 0.4), (0.01, 0.9)]
)
def test_the_threshold_keeps_at_least_the_share_asked_for(coverage, threshold):
    confidence = np.array([0.4, 0.9, 0.2, 0.6, 0.8])
    found = coverage_threshold(confidence, coverage)
    assert found == threshold and np.mean(confidence >= found) >= coverage


def test_rounding_of_the_share_costs_no_image():
    confidence = np.linspace(0.01, 1, 100)
    assert coverage_threshold(confidence, 0.07) == confidence[-7]  # 0.07 * 100 > 7 in floats


def test_recalibration_undoes_the_temperature_and_the_error_falls():
    table, y_prob, y_true = held_out(3000, 0.5, folds=np.arange(3000) % 5)
    found = recalibrate(table, CLASSES, 0.95)
    assert found.confidence.temperature == pytest.approx(2, rel=0.06)
    assert found.error_before == expected_calibration_error(y_prob, y_true) > 0.08
    assert found.error_after < 0.03
    without_folds = recalibrate(table.drop(columns="fold"), CLASSES, 0.95)
    np.testing.assert_array_equal(found.y_prob, without_folds.y_prob)  # every fifth is one


def test_each_fold_is_measured_with_the_temperature_of_the_others():
    folds = np.repeat([0, 1, 2], [500, 250, 250])
    table, y_prob, y_true = held_out(1000, np.where(folds == 0, 0.5, 2.0), folds)
    found = recalibrate(table, CLASSES, 0.95)
    of_others = fit_temperature(y_prob[500:], y_true[500:])
    assert of_others == pytest.approx(0.5, rel=0.1)
    np.testing.assert_allclose(found.y_prob[:500], apply_temperature(y_prob[:500], of_others))
    assert found.error_after > found.error_before, "each fold's temperature harms the other"


@pytest.mark.parametrize(("n", "answered"), [(50, 48), (1163, 1105), (3, 3)])
def test_the_threshold_answers_just_the_promised_share(n, answered):
    table, y_prob, _ = held_out(n, 0.5)
    confidence = recalibrate(table, CLASSES, 0.95).confidence
    kept = confidence.calibrated(y_prob).max(axis=1) >= confidence.threshold
    assert (kept.sum(), confidence.coverage) == (answered, 0.95)


@pytest.mark.parametrize("n", [1, 20])
def test_faultless_answers_keep_their_probabilities(n):
    """Likelihood alone would sharpen them without end."""
    y_prob = np.tile([0.6, 0.2, 0.1, 0.1], (n, 1))
    table = prediction_table([str(i) for i in range(n)], np.zeros(n, int), y_prob, CLASSES)
    found = recalibrate(table, CLASSES, 0.95)
    assert found.confidence == Confidence(1.0, pytest.approx(0.6, abs=1e-6), 0.95)


def test_metadata_without_a_temperature_change_nothing():
    assert Confidence.of({"classes": CLASSES}) == Confidence(1.0, 0.0, 1.0)
    assert Confidence.of({"temperature": 2.0, "threshold": 0.4, "coverage": 0.9, "x": 1}) == (
        Confidence(2.0, 0.4, 0.9)
    )
