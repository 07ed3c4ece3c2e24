from collections import Counter

import numpy as np
import pytest

from nutclf.evaluate.diagnosis import Claim, diagnose

LABELS = np.repeat(np.arange(10), 5)  # the published test split: ten classes of five


def matrix_of(y_true, y_pred, n=10):
    return np.bincount(y_true * n + y_pred, minlength=n * n).reshape(n, n)


def good():
    """Predictions of a network that is right on 47 of 50."""
    y_pred = LABELS.copy()
    y_pred[[3, 17, 40]] = [5, 2, 1]
    return y_pred


def test_a_good_matrix_is_consistent_with_its_claim():
    result = diagnose(matrix_of(LABELS, good()), Claim(0.94))
    assert (result.verdict, result.agrees, result.right, result.n) == ("consistent", True, 47, 50)
    assert result.renaming == tuple(range(10)) and result.p_renaming == 1.0
    assert result.p_accuracy == result.p_independence == 1e-4  # 1 / (9999 + 1)
    assert result.sentence() == (
        "The matrix has 47 of 50 images right (0.940), which agrees with the claimed 0.94."
    )


def test_a_skilled_matrix_with_another_figure_contradicts():
    result = diagnose(matrix_of(LABELS, good()), Claim(0.98))
    assert result.verdict == "contradicts" and not result.agrees
    assert "contradicts the claimed 0.98" in result.sentence()


def test_a_figure_of_another_split_may_differ_by_sampling():
    assert diagnose(matrix_of(LABELS, good()), Claim(0.98, n=50)).verdict == "consistent"
    assert diagnose(matrix_of(LABELS, good()), Claim(0.60, n=50)).verdict == "contradicts"


def test_fifty_random_predictions_claimed_094_look_like_chance():
    guesses = np.random.default_rng(0).integers(0, 10, 50)
    result = diagnose(matrix_of(LABELS, guesses), Claim(0.94))
    assert result.verdict == "chance" and not result.agrees
    assert result.p_accuracy > 0.05 and result.p_independence > 0.05
    assert "cannot be told from guessing" in result.sentence()


def test_a_shuffled_loader_is_recognised_by_what_its_predictions_could_reach():
    shuffled = np.random.default_rng(0).permutation(good())
    result = diagnose(matrix_of(LABELS, shuffled), Claim(0.94))
    assert result.verdict == "chance" and result.repairable == 47
    assert "could reach 0.940" in result.sentence() and "another order" in result.sentence()


def test_collapsed_predictions_are_not_blamed_on_the_order():
    result = diagnose(matrix_of(LABELS, np.zeros_like(LABELS)), Claim(0.94))
    assert result.verdict == "chance" and result.repairable == 5
    assert "label order alone cannot explain it" in result.sentence()


def test_a_collapsed_network_is_not_taken_for_a_renamed_one():
    # Renaming turns 2 right into 30, yet any shuffle of these predictions says the same.
    result = diagnose(np.array([[0, 30], [0, 2]]), Claim(0.94))
    assert result.renamed_right == 30 and result.p_renaming == 1.0
    assert result.verdict == "chance"


def test_two_swapped_classes_are_named():
    swap = np.array([[0, 8, 0], [8, 0, 0], [0, 0, 9]])
    result = diagnose(swap, Claim(1.0), classes=["almonds", "pecans", "walnuts"])
    assert result.verdict == "permuted" and result.renaming == (1, 0, 2)
    assert result.renamed_right == 25 and result.p_renaming < 0.001
    assert "almonds appears as pecans, pecans appears as almonds." in result.sentence()
    assert "walnuts appears" not in result.sentence()


def test_a_cyclic_shift_is_a_permutation_even_when_never_right():
    result = diagnose(np.array([[0, 9, 1], [0, 0, 10], [10, 0, 0]]), Claim(0.97))
    assert result.right == 0 and result.verdict == "permuted"
    assert result.renaming == (1, 2, 0) and result.renamed_right == 29


def test_a_shift_of_the_published_split():
    result = diagnose(matrix_of(LABELS, (good() + 1) % 10), Claim(0.94))
    assert result.verdict == "permuted" and result.renamed_right == 47
    assert result.claim.rounds_from(result.renamed_right / result.n)


def test_an_honest_confusion_is_no_permutation():
    # Cyclic renaming gains 2 images of 38; the matrix is far from chance.
    result = diagnose(np.array([[6, 6, 0], [0, 6, 7], [7, 0, 6]]), Claim(0.47))
    assert result.renaming == (1, 2, 0) and result.p_renaming > 0.5
    assert result.verdict == "consistent"


def test_the_best_of_all_renamings_is_not_taken_for_skill():
    # The best of 10! renamings of a random matrix reaches about 0.3 where one expects 0.1.
    rng = np.random.default_rng(5)
    results = [
        diagnose(matrix_of(LABELS, rng.integers(0, 10, 50)), Claim(0.94), draws=199, seed=k)
        for k in range(60)
    ]
    assert np.mean([r.renamed_right / r.n for r in results]) > 0.25
    verdicts = Counter(r.verdict for r in results)
    assert verdicts["permuted"] == 0 and verdicts["chance"] >= 51  # 57 expected, 3 sigma = 5.1


def test_a_third_right_of_fifty_is_more_than_chance():
    rng = np.random.default_rng(6)
    y_pred = np.where(rng.random(50) < 0.35, LABELS, rng.integers(0, 10, 50))
    assert diagnose(matrix_of(LABELS, y_pred), Claim(0.94)).verdict == "contradicts"


def test_too_few_images_are_not_called_chance():
    result = diagnose(np.eye(3, dtype=int), Claim(1.0))
    assert result.p_accuracy == pytest.approx(1 / 6)  # exact: one of 3! orders
    assert result.verdict == "consistent"


def test_chance_that_was_claimed_as_such_is_said_without_blame():
    guesses = np.random.default_rng(0).permutation(LABELS)
    matrix = matrix_of(LABELS, guesses)
    result = diagnose(matrix, Claim(np.trace(matrix) / 50))
    assert result.verdict == "chance" and result.agrees
    assert result.sentence().endswith(").") and "paired" not in result.sentence()


def test_an_absent_class_is_no_obstacle():
    matrix = matrix_of(LABELS[:45], good()[:45])
    assert diagnose(matrix, Claim(42 / 45)).verdict == "consistent"


def test_the_seed_fixes_the_diagnosis():
    matrix = matrix_of(LABELS, np.random.default_rng(9).integers(0, 10, 50))
    assert diagnose(matrix, Claim(0.9), seed=3) == diagnose(matrix, Claim(0.9), seed=3)


def test_rates_and_misfits_are_refused():
    with pytest.raises(ValueError, match="whole counts"):
        diagnose(np.array([[0.9, 0.1], [0.2, 0.8]]), Claim(0.85))
    with pytest.raises(ValueError, match=r"must be \[2, 2\]"):
        diagnose(np.eye(3), Claim(1.0), classes=["a", "b"])
