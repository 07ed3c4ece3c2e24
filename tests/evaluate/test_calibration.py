import numpy as np
import pytest
from scipy.special import softmax

from nutclf.evaluate.calibration import (
    TEMPERATURES,
    coverage_threshold,
    expected_calibration_error,
    fit_temperature,
    reliability_table,
)
from nutclf.evaluate.metrics import cross_entropy
from nutclf.evaluate.temperature import apply_temperature


def drawn_from(prob, seed=0):
    """Class ids drawn from their own probabilities [N, C]: perfectly calibrated by construction."""
    edges = prob.cumsum(axis=1)
    return (np.random.default_rng(seed).random(len(prob))[:, None] > edges).sum(axis=1)


def test_the_temperature_that_spoilt_the_probabilities_is_found_again():
    honest = softmax(np.random.default_rng(1).normal(scale=1.5, size=(4000, 4)), axis=1)
    y_true = drawn_from(honest)
    for spoilt_by in (0.5, 1.0, 2.0):
        spoilt = apply_temperature(honest, spoilt_by)
        assert fit_temperature(spoilt, y_true) == pytest.approx(1 / spoilt_by, rel=0.06)


def test_fitting_two_classes_by_hand():
    # Ten images at 0.9, eight right: the best confidence is 0.8, so T = logit(0.9) / logit(0.8).
    prob = np.tile([0.9, 0.1], (10, 1))
    y_true = np.array([0] * 8 + [1] * 2)
    assert fit_temperature(prob, y_true) == pytest.approx(np.log(9) / np.log(4), rel=1e-4)


def test_the_fitted_temperature_is_a_minimum_and_keeps_every_answer():
    prob = softmax(np.random.default_rng(2).normal(scale=4, size=(300, 5)), axis=1)
    y_true = drawn_from(apply_temperature(prob, 3))
    best = fit_temperature(prob, y_true)
    losses = [cross_entropy(apply_temperature(prob, best * f), y_true) for f in (0.97, 1, 1.03)]
    assert losses[1] == min(losses)
    warm = apply_temperature(prob, best)
    assert (warm.argmax(axis=1) == prob.argmax(axis=1)).all()
    assert warm.sum(axis=1) == pytest.approx(1)


def test_faultless_images_end_at_the_lower_bound():
    prob = np.tile([0.6, 0.4], (20, 1))
    assert fit_temperature(prob, np.zeros(20, int)) == pytest.approx(TEMPERATURES[0], rel=1e-2)


def test_temperature_one_changes_nothing_and_certainty_stays_finite():
    prob = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(apply_temperature(prob, 1), prob, atol=3e-7)
    assert np.isfinite(apply_temperature(prob, 0.01)).all()


def test_a_high_temperature_flattens():
    assert apply_temperature([[0.7, 0.2, 0.1]], 1e6) == pytest.approx(1 / 3, abs=1e-4)


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


def test_every_image_is_in_exactly_one_bin():
    prob = np.random.default_rng(0).dirichlet(np.ones(10), size=500)
    assert reliability_table(prob, np.zeros(500, int))["n"].sum() == 500


def test_honest_probabilities_have_a_small_error_and_sharpened_ones_a_large_one():
    honest = softmax(np.random.default_rng(3).normal(scale=1.5, size=(5000, 4)), axis=1)
    y_true = drawn_from(honest)
    assert expected_calibration_error(honest, y_true) < 0.03
    assert expected_calibration_error(apply_temperature(honest, 0.4), y_true) > 0.1


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


@pytest.mark.parametrize(
    ("confidence", "coverage"), [([], 0.5), ([0.5], 0), ([0.5], 1.1), ([np.nan], 1)]
)
def test_an_impossible_coverage_is_refused(confidence, coverage):
    with pytest.raises(ValueError, match="coverage"):
        coverage_threshold(confidence, coverage)


@pytest.mark.parametrize("shape", [(0, 2), (3, 2)])
def test_labels_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="y_true"):
        fit_temperature(np.full(shape, 0.5), np.zeros(shape[0] // 2, int))


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="bins is 0"):
        expected_calibration_error(np.array([[0.5, 0.5]]), np.array([0]), bins=0)
