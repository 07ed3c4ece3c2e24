import numpy as np
import pytest

from nutclf.evaluate.intervals import Rate, bootstrap_difference, compare, mcnemar
from nutclf.evaluate.predictions import prediction_table

CLASSES = ["almonds", "pecans"]


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
    assert Rate(successes, n).interval == pytest.approx((low, high), abs=5e-5)


def test_wilson_touches_the_ends_exactly():
    assert Rate(0, 9).interval[0] == 0.0 and Rate(9, 9).interval[1] == 1.0


@pytest.mark.parametrize("counts", [(1, 0), (-1, 5), (6, 5), (0, 0)])
def test_a_rate_of_impossible_counts_is_refused(counts):
    with pytest.raises(ValueError, match="needs 0 <= successes <= n"):
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
    assert len({bootstrap_difference(500, 900, 4000, seed=seed) for seed in range(5)}) > 1


def table_of(right, y_true=None):
    """A table whose row k is right as given; true classes alternate."""
    right = np.asarray(right, dtype=bool)
    y_true = np.arange(len(right)) % 2 if y_true is None else np.asarray(y_true)
    y_prob = np.eye(2)[np.where(right, y_true, 1 - y_true)]
    return prediction_table([f"{k:03d}.jpg" for k in range(len(right))], y_true, y_prob, CLASSES)


def pair(both, only_a, only_b, neither):
    a = [1] * both + [1] * only_a + [0] * only_b + [0] * neither
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return table_of(a), table_of(b)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (1, 8, 2 * (1 + 9) / 2**9),  # 0.0390625
        (10, 2, 2 * (1 + 12 + 66) / 2**12),  # 0.03857421875
        (0, 5, 2 / 2**5),
        (3, 3, 1.0),
        (0, 0, 1.0),
        (1, 0, 1.0),
    ],
)
def test_mcnemar_golden_numbers(only_a, only_b, p):
    assert mcnemar(only_a, only_b) == pytest.approx(p)


def test_counts_and_difference():
    result = compare(*pair(30, 1, 8, 11), CLASSES)
    assert (result.both, result.only_a, result.only_b, result.neither) == (30, 1, 8, 11)
    assert (result.n, result.difference) == (50, pytest.approx(0.14))
    assert result.interval[0] < 0.14 < result.interval[1]
    assert result.p_value == pytest.approx(0.0390625)


def test_the_join_is_on_path_and_never_on_order():
    a, b = pair(30, 1, 8, 11)
    shuffled = b.sample(frac=1, random_state=0)
    assert compare(a[::-1], shuffled, CLASSES) == compare(a, b, CLASSES)


def test_tables_of_other_images_are_refused_by_name():
    a, b = pair(3, 1, 1, 1)
    with pytest.raises(ValueError, match=r"different images: 1 .*005\.jpg"):
        compare(a, b.iloc[:-1], CLASSES)
    with pytest.raises(ValueError, match=r"'001\.jpg' different true classes"):
        compare(a, table_of([1] * 6, y_true=[0, 0, 0, 1, 0, 1]), CLASSES)


@pytest.mark.parametrize(
    ("counts", "end"),
    [
        ((30, 1, 8, 11), "Only B is right on 8, only A on 1 (McNemar's exact p = 0.0391): "
         "B is better by more than luck."),
        ((30, 10, 2, 8), "A is better by more than luck."),
        ((44, 1, 3, 2), "these images do not tell them apart."),
        ((40, 0, 0, 10), "95% interval +0.000 to +0.000. They are right on exactly the same "
         "images."),
    ],
)  # fmt: skip
def test_the_sentence_says_which_is_better_and_does_not_crown_luck(counts, end):
    assert compare(*pair(*counts), CLASSES).sentence().endswith(end)


def test_the_sentence_gives_the_figures_of_both():
    text = compare(*pair(30, 1, 8, 11), CLASSES).sentence("champion", "challenger")
    assert "challenger is right on 38 (0.760) and champion on 31 (0.620)" in text
    assert "difference +0.140, 95% interval +0.040 to +0.260." in text
