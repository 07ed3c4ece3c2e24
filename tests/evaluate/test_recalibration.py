"""Temperature and threshold from held-out predictions, and an honest word on what they do."""

import numpy as np
import pytest
from scipy.special import softmax

from nutclf.evaluate.calibration import expected_calibration_error, fit_temperature, recalibrate
from nutclf.evaluate.predictions import prediction_table
from nutclf.evaluate.temperature import Confidence, apply_temperature

CLASSES = ["almonds", "brazil nuts", "cashews", "pecans"]


def held_out(n, spoilt_by, folds=None, seed=0):
    """Predictions whose calibrated probabilities are known, spoilt by one temperature an image."""
    rng = np.random.default_rng(seed)
    honest = softmax(rng.normal(scale=2, size=(n, 4)), axis=1)
    y_true = (rng.random(n)[:, None] > honest.cumsum(axis=1)).sum(axis=1)
    pairs = zip(honest, np.broadcast_to(spoilt_by, n), strict=True)
    y_prob = np.stack([apply_temperature(prob[None], t)[0] for prob, t in pairs])
    table = prediction_table([f"{i}.jpg" for i in range(n)], y_true, y_prob, CLASSES, folds)
    return table, y_prob, y_true


def test_what_spoilt_the_probabilities_is_undone_and_the_error_falls():
    table, y_prob, y_true = held_out(3000, 0.5, folds=np.arange(3000) % 5)
    found = recalibrate(table, CLASSES, 0.95)
    assert found.confidence.temperature == pytest.approx(2, rel=0.06)
    assert found.error_before == expected_calibration_error(y_prob, y_true) > 0.08
    assert found.error_after < 0.03


def test_each_fold_is_judged_with_the_temperature_of_the_others():
    folds = np.repeat([0, 1], 500)
    table, y_prob, y_true = held_out(1000, np.where(folds == 0, 0.5, 2.0), folds)
    found = recalibrate(table, CLASSES, 0.95)
    of_second = fit_temperature(y_prob[500:], y_true[500:])
    assert of_second == pytest.approx(0.5, rel=0.1)
    np.testing.assert_allclose(found.y_prob[:500], apply_temperature(y_prob[:500], of_second))
    assert found.error_after > found.error_before, "so judged, temperatures that differ do harm"


def test_without_folds_every_fifth_image_is_one():
    table, _, _ = held_out(200, 0.5)
    found = recalibrate(table, CLASSES, 0.95)
    with_folds = recalibrate(table.assign(fold=np.arange(200) % 5), CLASSES, 0.95)
    np.testing.assert_array_equal(found.y_prob, with_folds.y_prob)


@pytest.mark.parametrize(("n", "answered"), [(50, 48), (1163, 1105), (3, 3)])
def test_the_threshold_leaves_just_the_promised_share_answered(n, answered):
    table, y_prob, _ = held_out(n, 0.5)
    confidence = recalibrate(table, CLASSES, 0.95).confidence
    kept = confidence.calibrated(y_prob).max(axis=1) >= confidence.threshold
    assert (kept.sum(), confidence.coverage) == (answered, 0.95)


def test_faultless_answers_say_nothing_of_how_sure_to_be():
    """Likelihood alone would sharpen them without end."""
    y_prob = np.tile([0.6, 0.2, 0.1, 0.1], (20, 1))
    table = prediction_table([str(i) for i in range(20)], np.zeros(20, int), y_prob, CLASSES)
    assert recalibrate(table, CLASSES, 0.95).confidence == Confidence(
        1.0, pytest.approx(0.6, abs=1e-6), 0.95
    )


def test_a_single_image_is_enough():
    table = prediction_table(["a"], np.array([1]), np.array([[0.6, 0.2, 0.1, 0.1]]), CLASSES)
    assert np.isfinite(recalibrate(table, CLASSES, 0.95).y_prob).all()


def test_metadata_without_a_temperature_change_nothing():
    assert Confidence.of({"classes": CLASSES}) == Confidence(1.0, 0.0, 1.0)
    assert Confidence.of({"temperature": 2.0, "threshold": 0.4, "coverage": 0.9, "x": 1}) == (
        Confidence(2.0, 0.4, 0.9)
    )
