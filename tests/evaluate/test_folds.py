import numpy as np
import pytest

from nutclf.evaluate.folds import assign_folds

LABELS = np.repeat([0, 1, 2], 20)


def test_every_image_is_held_out_once_and_classes_are_spread_evenly():
    folds = assign_folds(LABELS, range(60), 5, seed=0)
    for label in range(3):
        assert np.bincount(folds[label == LABELS]).tolist() == [4] * 5


def test_a_group_is_never_split():
    groups = np.arange(60)
    groups[[0, 7, 19]] = 100
    groups[[21, 33]] = 101
    folds = assign_folds(LABELS, groups, 5, seed=3)
    assert len(set(folds[[0, 7, 19]])) == 1
    assert folds[21] == folds[33]


def test_folds_follow_the_seed():
    first, again, other = (assign_folds(LABELS, range(60), 5, seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_a_class_with_fewer_groups_than_folds_is_refused():
    groups = np.arange(60)
    groups[:18] = 0  # 20 images of class 0, but only 3 different ones
    with pytest.raises(ValueError, match="the rarest class has 3"):
        assign_folds(LABELS, groups, 5, seed=0)
