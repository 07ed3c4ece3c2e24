import numpy as np
import pytest

from nutclf.evaluate.diagnosis import best_renaming, check_matrix, renaming_gain_p

CLASSES = [f"nut {letter}" for letter in "abcdefghij"]
NUTS = ["almonds", "pecans", "walnuts"]
SWAP = np.array([[0, 8, 0], [8, 0, 0], [0, 0, 9]])


def matrix_of(y_true, y_pred, n=10):
    return np.bincount(y_true * n + y_pred, minlength=n * n).reshape(n, n)


def test_the_best_renaming_prefers_not_to_move():
    assert best_renaming(np.array([[5, 5, 0], [0, 5, 5], [5, 0, 5]])) == (0, 1, 2)
    # A tie, 5 right either way, in which SciPy alone returns (0, 2, 1).
    assert best_renaming(np.array([[2, 1, 1], [0, 1, 2], [1, 1, 2]])) == (0, 1, 2)
    assert best_renaming(np.array([[0, 5, 0], [5, 0, 0], [0, 0, 5]])) == (1, 0, 2)


def test_one_image_outweighs_any_number_of_moves():
    counts = np.full((6, 6), 3) + np.eye(6, dtype=int)[np.roll(np.arange(6), -1)]
    assert best_renaming(counts) == (1, 2, 3, 4, 5, 0)


def test_the_price_of_choosing_a_renaming():
    # A swap among 3 classes with 8 + 8 images for it, none against: 2^-16 times 3 swaps.
    assert renaming_gain_p(SWAP, (1, 0, 2)) == pytest.approx(3 / 2**16)
    # A full cycle of 4 classes has 9 derangements.
    cycle = np.roll(np.eye(4, dtype=int) * 5, 1, axis=1)
    assert renaming_gain_p(cycle, (1, 2, 3, 0)) == pytest.approx(9 / 2**20)
    assert renaming_gain_p(cycle, (0, 1, 2, 3)) == 1


def test_a_good_matrix_passes_with_its_accuracy():
    matrix = np.diag([9, 8, 9])
    matrix[1, 0] = 1
    assert check_matrix(matrix, NUTS) == (
        "26 of 27 images are right (0.963); no renaming of the classes has more."
    )


def test_swapped_classes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"9 of 25 .* but 25 with the classes renamed") as caught:
        check_matrix(SWAP, NUTS)
    assert "almonds appears as pecans, pecans appears as almonds." in str(caught.value)
    assert "walnuts appears" not in str(caught.value)


def test_a_shifted_class_list_of_the_published_split_is_refused():
    y_true = np.repeat(np.arange(10), 5)
    with pytest.raises(ValueError, match=r"0 of 50 .* but 50 with"):
        check_matrix(matrix_of(y_true, (y_true + 1) % 10), CLASSES)


def test_an_honest_confusion_is_no_renaming():
    # The cyclic renaming gains 2 images of 38.
    matrix = np.array([[6, 6, 0], [0, 6, 7], [7, 0, 6]])
    assert check_matrix(matrix, NUTS).endswith(
        "renaming of the classes has 20, which luck explains."
    )


@pytest.mark.parametrize("n", [50, 1163])
@pytest.mark.parametrize("evenness", [0.05, 0.3, 10])
def test_poor_networks_pass(n, evenness):
    """Guesses that ignore the image, over all classes or nearly always one of them.

    On 1163 images a sign test with a fair coin would refuse one in five of the latter.
    """
    rng = np.random.default_rng(0)
    for _ in range(200):
        y_true = np.repeat(np.arange(10), rng.multinomial(n, rng.dirichlet(np.full(10, 20))))
        y_pred = rng.choice(10, n, p=rng.dirichlet(np.full(10, evenness)))
        check_matrix(matrix_of(y_true, y_pred), CLASSES)


def test_a_network_that_answers_one_class_passes():
    # Renaming turns 2 right into 30, yet the answer never depends on the image.
    assert "which luck explains" in check_matrix(np.array([[0, 30], [0, 2]]), ["a", "b"])


def test_column_totals_never_make_luck_look_like_evidence():
    """58 of 100 tosses: luck of a fair coin (p = 0.067), not of one of 0.45 that they suggest."""
    assert "which luck explains" in check_matrix(np.array([[42, 42], [16, 0]]), ["a", "b"])


def test_rates_and_misfits_are_refused():
    with pytest.raises(ValueError, match="whole counts"):
        check_matrix(np.array([[0.9, 0.1], [0.2, 0.8]]), ["a", "b"])
    with pytest.raises(ValueError, match=r"must be \[2, 2\]"):
        check_matrix(np.eye(3), ["a", "b"])
