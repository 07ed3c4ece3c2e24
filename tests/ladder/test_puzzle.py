import itertools
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from nutclf.ladder.puzzle import (
    diagnose,
    fits_claim,
    gallery,
    pixels_that_become,
    under_other_names,
)
from nutclf.model.backbones import find_spec

CLASSES = [f"a longer nut {letter}" for letter in "abcdefghij"]
LABELS = np.repeat(np.arange(10), 5)  # the published test split: ten classes of five


def matrix_of(y_true, y_pred, n=10):
    return np.bincount(y_true * n + y_pred, minlength=n * n).reshape(n, n)


def good():
    """Predictions of a network that is right on 47 of 50."""
    y_pred = LABELS.copy()
    y_pred[[3, 17, 40]] = [5, 2, 1]
    return y_pred


def probabilities_of(y_pred):
    """Each row's largest probability tells the image."""
    y_prob = np.full((50, 10), 0.01)
    y_prob[np.arange(50), y_pred] = 0.5 + np.arange(50) / 1000
    return y_prob


def test_a_good_matrix_is_consistent_with_the_claim():
    found = diagnose(matrix_of(LABELS, good()))
    assert (found.verdict, found.agrees, found.right, found.n) == ("consistent", True, 47, 50)
    assert found.renaming == tuple(range(10)) and found.p_renaming == 1.0
    assert found.p_accuracy == found.p_independence == 1e-4  # 1 / (9999 + 1)
    assert found.sentence(CLASSES) == (
        "The matrix has 47 of 50 images right (0.940), which agrees with the claimed 0.94 on 50 "
        "other images."
    )


def test_a_skilled_matrix_far_below_the_claim_contradicts():
    rng = np.random.default_rng(6)
    y_pred = np.where(rng.random(50) < 0.35, LABELS, rng.integers(0, 10, 50))
    found = diagnose(matrix_of(LABELS, y_pred))
    assert found.verdict == "contradicts" and not found.agrees
    assert "contradicts the claimed 0.94" in found.sentence(CLASSES)


def test_accuracy_alone_is_skill_enough():
    """13 of 50 right, all else spread as by chance: the association is not significant."""
    rng = np.random.default_rng(1)
    found = diagnose(
        matrix_of(LABELS, np.where(rng.random(50) < 0.15, LABELS, rng.integers(0, 10, 50)))
    )
    assert found.p_accuracy < 0.01 and found.p_independence > 0.5
    assert found.verdict == "contradicts"


def test_the_claim_of_another_split_is_compared_by_fishers_test():
    # 47 and 41 of 50: p = 0.12; 47 and 40: p = 0.071; 47 and 39: p = 0.041.
    assert fits_claim(40, 50) and not fits_claim(39, 50)


def test_random_predictions_look_like_chance():
    found = diagnose(matrix_of(LABELS, np.random.default_rng(0).integers(0, 10, 50)))
    assert found.verdict == "chance" and not found.agrees
    assert found.p_accuracy > 0.05 and found.p_independence > 0.05


def test_p_values_follow_the_hypergeometric_law():
    # Fisher's tea: 4 cups of 8, 3 of 4 right; P(3 or 4) = 17 / 70.
    found = diagnose(np.array([[3, 1], [1, 3]]))
    assert found.p_accuracy == pytest.approx(17 / 70, abs=0.01)
    # In a 2 x 2 table with equal margins 1 of 4 right is as close an association as 3 of 4.
    assert found.p_independence == pytest.approx(34 / 70, abs=0.015)


def test_collapsed_predictions_are_not_blamed_on_the_order():
    found = diagnose(matrix_of(LABELS, np.zeros_like(LABELS)))
    assert found.verdict == "chance" and found.repairable == 5
    assert "label order alone cannot explain it" in found.sentence(CLASSES)


def test_the_best_of_all_renamings_is_not_taken_for_skill():
    # The best of 10! renamings of a random matrix reaches about 0.3 where one expects 0.1.
    rng = np.random.default_rng(5)
    found = [diagnose(matrix_of(LABELS, rng.integers(0, 10, 50)), 199, k) for k in range(60)]
    assert np.mean([one.renamed_right / one.n for one in found]) > 0.25
    verdicts = Counter(one.verdict for one in found)
    assert verdicts["permuted"] == 0 and verdicts["chance"] >= 51  # 57 expected, 3 sigma = 5.1


def test_too_few_images_are_not_called_chance():
    found = diagnose(np.eye(3, dtype=int))
    assert found.p_accuracy == pytest.approx(1 / 6, abs=0.02)
    assert found.verdict == "consistent"


def test_an_absent_class_is_no_obstacle():
    assert diagnose(matrix_of(LABELS[:45], good()[:45])).verdict == "consistent"


def test_an_accuracy_that_the_claim_allows_can_be_repaired_too():
    """43 of 50 may share a rate with 0.94 although it is less."""
    y_pred = LABELS.copy()
    y_pred[5:40:5] = 0
    found = diagnose(matrix_of(LABELS, np.random.default_rng(0).permutation(y_pred)))
    assert (found.verdict, found.repairable) == ("chance", 43)
    assert "could reach 0.860" in found.sentence(CLASSES)


def test_another_order_keeps_the_predictions_and_could_be_repaired():
    y_prob = probabilities_of(good())
    shuffled = np.random.default_rng(0).permutation(y_prob)
    found = diagnose(matrix_of(LABELS, shuffled.argmax(axis=1)))
    assert (found.verdict, found.repairable) == ("chance", 47)
    assert "could reach 0.940" in found.sentence(CLASSES)


def test_other_names_leave_no_class_its_own_and_are_recognised():
    renamed = under_other_names(probabilities_of(good()), 0).argmax(axis=1)
    found = diagnose(matrix_of(LABELS, renamed))
    assert (found.verdict, found.renamed_right) == ("permuted", 47)
    assert all(i != j for i, j in enumerate(found.renaming))
    assert found.sentence(CLASSES).count(" appears as ") == 10
    assert under_other_names(np.eye(2), 5).tolist() == [[0, 1], [1, 0]], "two classes swap"


def test_white_past_the_scaling_of_mobilenetv2_by_hand():
    """The network computes p / 127.5 - 1; to see 255 it must be given 256 * 127.5."""
    white = np.full((1, 1, 1, 3), 255)
    assert pixels_that_become(white, find_spec("mobilenetv2")).ravel().tolist() == [32640] * 3


def test_the_models_own_scaling_gives_back_what_was_asked_for():
    spec = replace(find_spec("mobilenetv2"), scale=(0.01, 0.02, 0.03), offset=(-2.0, -1.0, 0.5))
    wanted = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3))
    pixels = pixels_that_become(wanted, spec)
    assert pixels.dtype == np.float32
    seen = pixels * np.float32(spec.scale) + np.float32(spec.offset)
    np.testing.assert_allclose(seen, wanted, atol=1e-3)


def shown(matrix, cause="predictions in shuffled order, labels in folder order"):
    return cause, matrix, diagnose(matrix, draws=99)


@pytest.fixture(scope="module")
def figure():
    perfect = 5 * np.eye(10, dtype=int)
    collapsed = np.zeros((10, 10), int)
    collapsed[:, 3] = 5
    matrices = perfect, np.roll(perfect, 1, axis=1), collapsed, perfect, perfect
    return gallery([shown(matrix) for matrix in matrices], CLASSES)


def test_each_panel_says_accuracy_and_verdict_and_prints_no_zero(figure):
    shown = [text for text in figure.axes[1].texts if text.get_text()]
    assert {text.get_text() for text in shown} == {"5"}
    at = [text.get_position() for text in shown]
    assert at == [((i + 1) % 10 + 0.5, i + 0.5) for i in range(10)], "row true, column predicted"
    assert [ax.get_xlabel() for ax in figure.axes[:3]] == [
        "accuracy 1.00  (0.93-1.00)\nconsistent",
        "accuracy 0.00  (0.00-0.07)\npermuted",
        "accuracy 0.10  (0.04-0.21)\nchance",
    ]


def test_nothing_leaves_the_canvas_and_no_panel_touches_another(figure):
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0
    header = [text.get_window_extent() for text in figure.texts]
    assert max(box.y1 for box in boxes) < min(extent.y0 for extent in header)


def test_names_are_taken_literally():
    gallery(
        [shown(5 * np.eye(2, dtype=int), "$\\frac{$ of it")], ["a$b$", "$\\frac{$"]
    ).canvas.draw()


def test_a_diagnosis_fits_into_json():
    assert json.loads(json.dumps(vars(diagnose(matrix_of(LABELS, good())))))["right"] == 47
