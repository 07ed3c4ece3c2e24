import numpy as np
import pytest

from nutclf.evaluate.comparison import compare, mcnemar
from nutclf.evaluate.predictions import prediction_table

CLASSES = ["almonds", "pecans"]


def table_of(right, y_true=None):
    """A table whose row k is right as given; true classes alternate."""
    right = np.asarray(right, dtype=bool)
    y_true = np.arange(len(right)) % 2 if y_true is None else np.asarray(y_true)
    y_pred = np.where(right, y_true, 1 - y_true)
    return prediction_table(
        [f"{k:03d}.jpg" for k in range(len(right))], y_true, np.eye(2)[y_pred], CLASSES
    )


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
    assert result.n == 50
    assert (result.accuracy_a, result.accuracy_b) == (0.62, 0.76)
    assert result.difference == pytest.approx(0.14)
    assert result.interval[0] < 0.14 < result.interval[1]
    assert result.p_value == pytest.approx(0.0390625)


def test_the_join_is_on_path_and_never_on_order():
    a, b = pair(30, 1, 8, 11)
    expected = compare(a, b, CLASSES)
    for seed in range(3):
        shuffled = b.sample(frac=1, random_state=seed)
        assert compare(a, shuffled, CLASSES) == expected
        assert compare(a.sample(frac=1, random_state=seed), shuffled, CLASSES) == expected


def test_the_order_of_rows_does_not_move_a_grouped_interval():
    a, b = pair(10, 3, 8, 4)
    groups = {path: int(path[:3]) // 5 for path in a["path"]}
    once = compare(a, b, CLASSES, groups=groups)
    again = compare(a[::-1], b.sample(frac=1, random_state=1), CLASSES, groups=groups)
    assert once == again and once.interval != compare(a, b, CLASSES).interval


def test_other_images_are_refused_by_name():
    a, b = pair(3, 1, 1, 1)
    with pytest.raises(ValueError, match=r"different images: 1 .*005\.jpg"):
        compare(a, b.iloc[:-1], CLASSES)


def test_an_image_that_comes_twice_is_refused():
    a, b = pair(3, 1, 1, 1)
    with pytest.raises(ValueError, match=r"table b holds '000\.jpg' more than once"):
        compare(a, b.iloc[[0, 0, 1, 2, 3, 4, 5]], CLASSES)


def test_another_truth_for_an_image_is_refused():
    a = table_of([1, 1, 1], y_true=[0, 1, 0])
    with pytest.raises(ValueError, match=r"'001\.jpg' different true classes"):
        compare(a, table_of([1, 1, 1], y_true=[0, 0, 0]), CLASSES)


def test_the_sentence_of_a_clear_winner():
    text = compare(*pair(30, 1, 8, 11), CLASSES).sentence("champion", "challenger")
    assert "challenger is right on 38 (0.760) and champion on 31 (0.620)" in text
    assert "difference +0.140" in text and "p = 0.0391" in text
    assert text.endswith("challenger is better by more than luck.")


def test_the_sentence_names_a_when_a_is_better():
    text = compare(*pair(30, 10, 2, 8), CLASSES).sentence()
    assert text.endswith("A is better by more than luck.")


def test_the_sentence_does_not_crown_luck():
    text = compare(*pair(44, 1, 3, 2), CLASSES).sentence()
    assert text.endswith("these images do not tell them apart.")


def test_the_sentence_of_twins():
    result = compare(*pair(40, 0, 0, 10), CLASSES)
    assert result.p_value == 1.0 and result.interval == (0.0, 0.0)
    assert result.sentence().endswith("right on exactly the same images.")
