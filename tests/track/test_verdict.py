"""Who takes the champion's place: hand-counted tables, and rivals that must be refused."""

import numpy as np
import pytest

from nutclf.config import OBJECTIVES
from nutclf.evaluate.predictions import prediction_table
from nutclf.track.promotion import Candidate, judge

CLASSES = ["almonds", "pecans"]


class Version:
    def __init__(self, number):
        self.version = number


def table(right: list[bool]):
    """Images of which the first class is true; `right` says which are so predicted."""
    y_prob = np.array([[0.9, 0.1] if good else [0.1, 0.9] for good in right])
    paths = [f"{i}.jpg" for i in range(len(right))]
    return prediction_table(paths, np.zeros(len(right), int), y_prob, CLASSES)


def candidate(number, right, valid=(True,) * 4, classes=CLASSES):
    out_of_fold = None if right is None else table(right)
    return Candidate(Version(number), list(classes), out_of_fold, table(list(valid)))


def verdict(new, old, objective="cv", **valid):
    return judge(candidate(2, new), candidate(1, old), OBJECTIVES[objective])


def test_more_right_by_more_than_luck_wins():
    # 9 images only the rival has right, 1 only the champion: p = 2 * (1 + 10) / 2**10 = 0.0215.
    new = [True] * 19 + [False]
    old = [False] * 9 + [True] * 11
    found = verdict(new, old)
    assert found.wins
    assert found.comparison.p_value == pytest.approx(22 / 1024)
    assert "p = 0.0215" in found.reason


def test_more_right_by_luck_does_not_win():
    # 5 against 1: p = 2 * (1 + 6) / 64 = 0.21875.
    new = [True] * 19 + [False]
    old = [False] * 5 + [True] * 15
    found = verdict(new, old)
    assert not found.wins
    assert found.comparison.p_value == pytest.approx(14 / 64)
    assert "do not tell them apart" in found.reason


def test_fewer_right_by_more_than_luck_does_not_win():
    assert not verdict([False] * 9 + [True] * 11, [True] * 20).wins


def test_without_out_of_fold_predictions_the_valid_split_decides():
    good, poor = (True, True, True, True), (True, True, False, False)
    valid = OBJECTIVES["valid"]
    assert judge(candidate(2, None, good), candidate(1, None, poor), valid).wins
    assert not judge(candidate(2, None, poor), candidate(1, None, good), valid).wins


def test_out_of_fold_predictions_of_other_images_are_not_compared():
    rival, champion = candidate(2, [True] * 20), candidate(1, [False] * 15)
    found = judge(rival, champion, OBJECTIVES["cv"])
    assert "valid loss" in found.reason


def test_on_corrected_data_the_corrected_labels_of_common_images_count_for_both():
    champion = candidate(1, [True] * 8 + [False] * 12)  # of 12 it says the second class
    rival = candidate(2, [False] * 8 + [True] * 11)
    # A person says that the second class is true of the first eight, and dropped the last image.
    rival.out_of_fold.loc[:7, "y_true"] = "pecans"
    found = judge(rival, champion, OBJECTIVES["cv"])
    assert found.wins
    seen = found.comparison
    assert (seen.n, seen.only_b, seen.only_a) == (19, 19, 0)


def test_other_classes_are_not_compared():
    found = judge(
        candidate(2, [True] * 20), candidate(1, None, classes=["a", "b"]), OBJECTIVES["cv"]
    )
    assert not found.wins
    assert "other classes" in found.reason
