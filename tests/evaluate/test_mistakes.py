"""Which answers are shown: the surest mistakes, and right answers of every class."""

import numpy as np
import pytest

from nutclf.evaluate.mistakes import surest_hits, worst_mistakes
from nutclf.evaluate.predictions import prediction_table

CLASSES = ("almonds", "pecans", "walnuts")
Y_PROB = np.array(
    [
        [0.9, 0.1, 0.0],  # a: right
        [0.2, 0.7, 0.1],  # b: almonds taken for pecans, 0.7
        [0.0, 0.6, 0.4],  # c: right
        [0.8, 0.1, 0.1],  # d: pecans taken for almonds, 0.8
        [0.1, 0.2, 0.7],  # e: right
        [0.7, 0.2, 0.1],  # f: walnuts taken for almonds, 0.7
        [0.95, 0.0, 0.05],  # g: right
    ]
)
LABELS = np.array([0, 0, 1, 1, 2, 2, 0])


@pytest.fixture
def table():
    return prediction_table(list("abcdefg"), LABELS, Y_PROB, CLASSES)


def test_the_surest_mistake_comes_first_and_equals_by_path(table):
    found = worst_mistakes(table, 10)
    assert [answer.path for answer in found] == ["d", "b", "f"]
    first = found[0]
    assert (first.y_true, first.y_pred, first.confidence) == ("pecans", "almonds", 0.8)
    assert not first.right
    assert [answer.path for answer in worst_mistakes(table.iloc[::-1], 2)] == ["d", "b"]


def test_every_class_has_its_turn_among_the_right_answers(table):
    assert [answer.path for answer in surest_hits(table, 4)] == ["g", "e", "c", "a"]
    assert all(answer.right for answer in surest_hits(table, 4))


def test_a_model_without_mistakes_has_none(table):
    assert worst_mistakes(table[table["y_true"] == table["y_pred"]], 5) == []
    assert surest_hits(table.iloc[:0], 5) == []
