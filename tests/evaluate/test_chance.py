import math

import numpy as np
import pytest

from nutclf.evaluate import diagnosis as chance


def test_few_images_are_compared_with_every_shuffle():
    shuffled, exact = chance.shuffled_matrices(np.diag([2, 2]))
    assert exact and len(shuffled) == math.factorial(4)
    perfect = (np.trace(shuffled, axis1=1, axis2=2) == 4).sum()
    assert perfect / len(shuffled) == pytest.approx(1 / math.comb(4, 2))


@pytest.mark.parametrize(
    "counts", [np.array([[3, 1], [0, 2]]), np.array([[20, 5, 0], [1, 9, 9]] * 2)[:3]]
)
def test_shuffles_keep_the_margins(counts):
    shuffled, _ = chance.shuffled_matrices(counts, draws=50)
    assert (shuffled.sum(axis=1) == counts.sum(axis=0)).all()
    assert (shuffled.sum(axis=2) == counts.sum(axis=1)).all()


def test_sampled_shuffles_follow_the_hypergeometric_law():
    # Fisher's tea: 4 cups of 8; P(all right) = 1 / 70, P(3 of 4) = 16 / 70.
    shuffled, exact = chance.shuffled_matrices(np.diag([4, 4]), draws=20_000)
    hits = shuffled[:, 0, 0]
    assert not exact
    assert np.mean(hits == 4) == pytest.approx(1 / 70, abs=0.003)
    assert np.mean(hits == 3) == pytest.approx(16 / 70, abs=0.01)


def test_a_sample_never_claims_p_zero():
    assert chance.p_at_least(9, np.arange(9), exact=False) == 0.1
    assert chance.p_at_least(9, np.arange(9), exact=True) == 0.0
    assert chance.p_at_least(8, np.arange(9), exact=True) == pytest.approx(1 / 9)


def test_association_is_pearsons_chi_square():
    counts = np.array([[10, 20], [30, 40]])
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    # By hand: n (ad - bc)^2 / (product of margins) = 100 * 200^2 / (30 * 70 * 40 * 60).
    chi_square = 100 * (10 * 40 - 20 * 30) ** 2 / (30 * 70 * 40 * 60)
    assert chance.association(counts, rows, columns) == pytest.approx(1 + chi_square / 100)


def test_the_best_renaming_prefers_not_to_move():
    assert chance.best_renaming(np.array([[5, 5, 0], [0, 5, 5], [5, 0, 5]])) == (0, 1, 2)
    # A tie, 5 right either way, in which SciPy alone returns (0, 2, 1).
    assert chance.best_renaming(np.array([[2, 1, 1], [0, 1, 2], [1, 1, 2]])) == (0, 1, 2)
    assert chance.best_renaming(np.array([[0, 5, 0], [5, 0, 0], [0, 0, 5]])) == (1, 0, 2)
    assert chance.best_renaming(np.zeros((4, 4), int)) == (0, 1, 2, 3)


def test_one_image_outweighs_any_number_of_moves():
    counts = np.full((6, 6), 3) + np.eye(6, dtype=int)[np.roll(np.arange(6), -1)]
    assert chance.best_renaming(counts) == (1, 2, 3, 4, 5, 0)


def test_the_price_of_choosing_a_renaming():
    # A swap among 3 classes with 8 + 8 images for it, none against: 2^-16 times 3 swaps.
    swap = np.array([[0, 8, 0], [8, 0, 0], [0, 0, 9]])
    assert chance.renaming_gain_p(swap, (1, 0, 2)) == pytest.approx(3 / 2**16)
    # A full cycle of 4 classes has 9 derangements.
    cycle = np.roll(np.eye(4, dtype=int) * 5, 1, axis=1)
    assert chance.renaming_gain_p(cycle, (1, 2, 3, 0)) == pytest.approx(9 / 2**20)


def test_perfect_guesses_of_few_images_are_not_rare():
    assert chance.p_of_all_right(np.eye(3, dtype=int)) == pytest.approx(1 / 6)
    assert chance.p_of_all_right(np.array([[5, 4], [0, 0]])) == pytest.approx(1)
