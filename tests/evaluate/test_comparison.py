import numpy as np
import pytest

from nutclf.evaluate.comparison import compare, mcnemar
from nutclf.evaluate.predictions import prediction_table

CLASSES = ["almonds", "pecans"]


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
    with pytest.raises(ValueError, match=r"table b holds '000\.jpg' more than once"):
        compare(a, b.iloc[[0, 0, 1, 2, 3, 4, 5]], CLASSES)
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
