import json

import numpy as np
import pytest

from nutclf.evaluate.diagnosis import Claim
from nutclf.evaluate.predictions import labels, prediction_table, probabilities
from nutclf.ladder.puzzle import exhibit, in_another_order, pixels_that_become, under_other_names

CLASSES = [f"nut {letter}" for letter in "abcdefghij"]
CLAIM = Claim(0.94, n=50)


@pytest.fixture(scope="module")
def table():
    """Of a model that is right on 48 of 50; each row's largest probability tells the image."""
    truth = np.repeat(np.arange(10), 5)
    said = truth.copy()
    said[[0, 7]] = [3, 9]
    y_prob = np.full((50, 10), 0.01)
    y_prob[np.arange(50), said] = 0.5 + np.arange(50) / 1000
    y_prob /= y_prob.sum(axis=1, keepdims=True)
    return prediction_table([f"{i}.jpg" for i in range(50)], truth, y_prob, CLASSES)


def test_the_true_evaluation_is_consistent_with_the_claim(table):
    shown = exhibit("true", "evaluated rightly", table, CLASSES, CLAIM)
    assert (shown.diagnosis.verdict, shown.rate.successes, shown.rate.n) == ("consistent", 48, 50)


def test_another_order_keeps_images_and_truth_and_moves_the_predictions(table):
    shuffled = in_another_order(table, CLASSES, 0)
    assert shuffled["path"].tolist() == table["path"].tolist()
    assert shuffled["y_true"].tolist() == table["y_true"].tolist()
    before, after = (probabilities(one, CLASSES).max(axis=1) for one in (table, shuffled))
    assert sorted(before) == sorted(after)
    assert np.mean(before != after) > 0.9


def test_another_order_looks_like_chance_that_could_be_repaired(table):
    shown = exhibit("shuffled", "", in_another_order(table, CLASSES, 0), CLASSES, CLAIM)
    assert shown.diagnosis.verdict == "chance"
    assert shown.diagnosis.repairable == 48
    assert shown.rate.share < 0.25


def test_other_names_leave_no_class_its_own_and_lose_no_image(table):
    renamed = under_other_names(table, CLASSES, 0)
    shown = exhibit("renamed", "", renamed, CLASSES, CLAIM)
    assert shown.diagnosis.verdict == "permuted"
    assert all(i != j for i, j in enumerate(shown.diagnosis.renaming))
    assert (shown.diagnosis.renamed_right, shown.rate.share) == (48, shown.diagnosis.right / 50)
    assert shown.rate.share <= 2 / 50, "only what was wrong before can be right now"
    assert labels(renamed, CLASSES)[0].tolist() == labels(table, CLASSES)[0].tolist()


@pytest.mark.parametrize("change", [in_another_order, under_other_names])
def test_a_mistake_follows_its_seed(table, change):
    first, again, other = (change(table, CLASSES, seed)["y_pred"].tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_two_classes_swap_names():
    pair = prediction_table(["a", "b"], np.array([0, 1]), np.eye(2), ["x", "y"])
    assert under_other_names(pair, ["x", "y"], 5)["y_pred"].tolist() == ["y", "x"]


@pytest.mark.parametrize(
    ("scale", "offset"),
    [((1 / 127.5,) * 3, (-1.0,) * 3), ((0.01, 0.02, 0.03), (-2.0, -1.0, 0.5))],
)
def test_the_models_own_scaling_gives_back_what_was_asked_for(scale, offset):
    wanted = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3))
    pixels = pixels_that_become(wanted, scale, offset)
    assert pixels.dtype == np.float32
    seen = pixels * np.float32(scale) + np.float32(offset)
    np.testing.assert_allclose(seen, wanted, atol=1e-3)


def test_white_past_the_scaling_of_mobilenetv2_by_hand():
    """The network computes p / 127.5 - 1; to see 255 it must be given 256 * 127.5."""
    white = np.full((1, 1, 1, 3), 255)
    assert pixels_that_become(white, (1 / 127.5,) * 3, (-1,) * 3).ravel().tolist() == [32640] * 3


def test_a_record_holds_matrix_accuracy_and_diagnosis(table):
    record = exhibit("true", "evaluated rightly", table, CLASSES, CLAIM).record()
    again = json.loads(json.dumps(record))
    assert np.trace(again["matrix"]) == 48
    assert (again["key"], again["accuracy"], again["classes"]) == ("true", 0.96, CLASSES)
    assert again["diagnosis"]["verdict"] == "consistent"
    assert again["diagnosis"]["claim"] == {"accuracy": 0.94, "decimals": 2, "n": 50}
    assert again["diagnosis"]["sentence"].startswith("The matrix has 48 of 50 images right")
