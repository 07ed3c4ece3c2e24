import numpy as np
import pytest

from nutclf.ladder.climb import names_by_class

NAMES = ["crane", "acorn", "bagel", "crane"]


def test_names_are_counted_by_class_the_most_frequent_first():
    y_true = np.array([0, 0, 0, 1, 1])
    named = np.array([2, 1, 2, 1, 1])
    assert names_by_class(y_true, named, ["almonds", "pecans"], NAMES) == {
        "almonds": [("bagel", 2), ("acorn", 1)],
        "pecans": [("acorn", 2)],
    }


def test_two_classes_of_one_name_count_together_and_ties_are_alphabetical():
    y_true, named = np.zeros(4, int), np.array([0, 3, 1, 1])
    found = names_by_class(y_true, named, ["almonds"], NAMES)
    assert found == {"almonds": [("acorn", 2), ("crane", 2)]}


def test_a_class_without_images_has_no_names():
    assert names_by_class(np.array([0]), np.array([1]), ["a", "b"], NAMES)["b"] == []


def test_sequences_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="do not pair"):
        names_by_class(np.zeros(3, int), np.zeros(2, int), ["a"], NAMES)
