import numpy as np
import pytest

from nutclf.evaluate.intervals import Rate, bootstrap_difference, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (48, 50, 0.8654, 0.9890),  # by hand, z = 1.959964
        (81, 263, 0.2553, 0.3662),  # R. G. Newcombe, Statistics in Medicine 17 (1998), table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_golden_numbers(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_touches_the_ends_exactly():
    low, high = wilson(7, 30)
    assert wilson(23, 30) == pytest.approx((1 - high, 1 - low))
    assert wilson(0, 9)[0] == 0.0 and wilson(9, 9)[1] == 1.0


def test_wilson_widens_with_the_level_and_narrows_with_n():
    assert wilson(45, 50, 0.99)[0] < wilson(45, 50)[0] < wilson(900, 1000)[0]


@pytest.mark.parametrize("arguments", [(1, 0), (-1, 5), (6, 5), (1, 5, 0), (1, 5, 1), (1, 5, 95)])
def test_wilson_refuses_impossible_counts_and_levels(arguments):
    with pytest.raises(ValueError, match="wilson"):
        wilson(*arguments)


def test_a_rate_prints_what_it_rests_on():
    assert str(Rate(48, 50)) == "0.960 (48/50, 95% 0.865-0.989)"
    assert str(Rate(0, 4, level=0.9)).startswith("0.000 (0/4, 90% 0.000-")


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="wilson"):
        Rate(0, 0)


def verdicts(both, only_a, only_b, neither):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a), np.array(b)


def test_the_bootstrap_agrees_with_the_normal_interval_of_a_paired_difference():
    a, b = verdicts(600, 80, 120, 200)
    centre, spread = 0.04, 1.96 * np.sqrt((0.2 - 0.04**2) / 1000)  # var of d in {-1, 0, 1}, n 1000
    interval = bootstrap_difference(a, b)
    assert interval == pytest.approx((centre - spread, centre + spread), abs=0.002)


def test_the_difference_is_b_minus_a():
    low, high = bootstrap_difference(*verdicts(10, 0, 30, 10))
    assert 0 < low < 0.6 < high


def test_equal_models_differ_by_nothing():
    a, _ = verdicts(30, 10, 0, 10)
    assert bootstrap_difference(a, a) == (0.0, 0.0)


def test_the_seed_fixes_the_interval():
    pair = verdicts(20, 5, 9, 6)
    assert bootstrap_difference(*pair, seed=4) == bootstrap_difference(*pair, seed=4)
    assert len({bootstrap_difference(*pair, seed=seed, n=501) for seed in range(5)}) > 1


def test_groups_of_one_change_nothing():
    pair = verdicts(20, 5, 9, 6)
    alone = [f"image {i}" for i in range(40)]
    assert bootstrap_difference(*pair, groups=alone) == bootstrap_difference(*pair)


def test_copies_of_an_image_do_not_narrow_the_interval():
    a, b = verdicts(20, 5, 9, 6)
    single = bootstrap_difference(a, b)
    copies, group = (np.repeat(a, 4), np.repeat(b, 4)), np.repeat(np.arange(40), 4)
    assert bootstrap_difference(*copies, groups=group) == pytest.approx(single, abs=1e-9)
    naive = bootstrap_difference(*copies)
    assert naive[1] - naive[0] < 0.6 * (single[1] - single[0])


@pytest.mark.parametrize(
    ("a", "b", "groups"),
    [
        ([True], [True, False], None),
        ([True, False], [True, False], ["one"]),
        ([], [], None),
        ([1, 0], [0, 1], None),
    ],
)
def test_the_bootstrap_refuses_what_cannot_be_paired(a, b, groups):
    with pytest.raises(ValueError, match="needed"):
        bootstrap_difference(a, b, groups)
