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


def test_wilson_touches_the_ends_exactly():
    assert wilson(0, 9)[0] == 0.0 and wilson(9, 9)[1] == 1.0


@pytest.mark.parametrize("counts", [(1, 0), (-1, 5), (6, 5), (0, 0)])
def test_a_rate_of_impossible_counts_is_refused(counts):
    with pytest.raises(ValueError, match="wilson"):
        Rate(*counts)


def test_a_rate_prints_what_it_rests_on():
    assert str(Rate(48, 50)) == "0.960 (48/50, 95% 0.865-0.989)"


def test_the_bootstrap_agrees_with_the_normal_interval_of_a_paired_difference():
    centre, spread = 0.04, 1.96 * np.sqrt((0.2 - 0.04**2) / 1000)  # var of d in {-1, 0, 1}, n 1000
    interval = bootstrap_difference(80, 120, 1000)
    assert interval == pytest.approx((centre - spread, centre + spread), abs=0.002)


def test_the_difference_is_b_minus_a():
    low, high = bootstrap_difference(0, 30, 50)
    assert 0 < low < 0.6 < high
    assert bootstrap_difference(0, 0, 40) == (0.0, 0.0)


def test_the_seed_fixes_the_interval():
    assert bootstrap_difference(5, 9, 40, seed=4) == bootstrap_difference(5, 9, 40, seed=4)
    assert len({bootstrap_difference(5, 9, 40, draws=501, seed=seed) for seed in range(5)}) > 1
