import numpy as np
import pytest

from nutclf.data.folder import Split
from nutclf.errors import UserError
from nutclf.evaluate.folds import assign_folds, make_folds

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


def split(n_pecans):
    """Ten almonds, the last two one picture in two files, and some pecans; all else is noise."""
    n = 10 + n_pecans
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)
    pixels[9] = pixels[8]
    labels = np.repeat([0, 1], [10, n_pecans])
    return Split(pixels, labels, [f"{i}.jpg" for i in range(n)], [f"key {i}" for i in range(n)])


def test_images_that_look_alike_share_a_fold():
    for seed in range(5):
        folds = make_folds(split(10), 5, seed, "refused: {}")
        assert folds[8] == folds[9]
        assert sorted(set(folds)) == [0, 1, 2, 3, 4]


def test_there_are_as_many_folds_as_the_rarest_class_has_images():
    folds = make_folds(split(4), 5, 0, "refused: {}")
    assert sorted(set(folds)) == [0, 1, 2, 3]
    assert sorted(folds[10:]) == [0, 1, 2, 3]


def test_a_class_of_a_single_image_is_refused_in_the_caller_s_words():
    with pytest.raises(
        UserError, match=r"^refused: 10.jpg is the only different image of its class$"
    ):
        make_folds(split(1), 5, 0, "refused: {}")
