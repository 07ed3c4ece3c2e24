"""How near an image is to what was learned from: known directions, and a file and back."""

import numpy as np
import pytest

from nutclf.evaluate import familiarity
from nutclf.evaluate.familiarity import Familiarity, learn_familiarity

SMALL = np.eye(4)[[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]] + 0.01 * np.arange(12)[:, np.newaxis]
LABELS = np.repeat([0, 1], 6)
PATHS = [f"train/{i}.jpg" for i in range(12)]
FOLDS = np.tile([0, 1, 2], 4)


def test_a_score_is_the_mean_cosine_to_the_five_nearest_whatever_the_length():
    bank = np.float16([[1, 0], [0.8, 0.6], [0.6, 0.8], [0.8, -0.6], [0.6, -0.8], [0, 1], [-1, 0]])
    known = Familiarity(bank, list("abcdefg"), 0.5)
    scores, nearest = known.compare(np.array([[3.0, 0], [-2, 0], [0, 0]]))
    assert scores == pytest.approx(
        [(1 + 0.8 + 0.6 + 0.8 + 0.6) / 5, (1 - 0 - 0.6 - 0.6 - 0.8) / 5, 0], abs=1e-3
    )
    assert nearest[0][0] == "a"
    assert nearest[1][:2] == ["g", "f"]


def test_the_threshold_keeps_its_share_of_images_compared_with_other_folds():
    known = learn_familiarity(SMALL, LABELS, PATHS, FOLDS, 0.75)
    unit = SMALL / np.linalg.norm(SMALL, axis=1, keepdims=True)
    scores = []
    for i, fold in enumerate(FOLDS):
        cosines = unit[fold != FOLDS] @ unit[i]
        scores.append(np.sort(cosines)[-5:].mean())
    assert np.mean(np.array(scores) >= known.threshold - 1e-6) == 0.75
    assert known.paths == PATHS


def test_without_folds_an_image_does_not_vouch_for_itself():
    alone = np.vstack([SMALL, [0, 0, 0, 1]])
    labels, paths = np.append(LABELS, 1), [*PATHS, "alone"]
    known = learn_familiarity(alone, labels, paths, np.full(13, -1), 0.99)
    assert known.threshold < 0.5


def test_a_large_training_set_keeps_its_share_of_every_class(monkeypatch):
    monkeypatch.setattr(familiarity, "MAX_BYTES", 6 * 2 * 4)
    known = learn_familiarity(SMALL, LABELS, PATHS, FOLDS, 0.95)
    assert known.bank.shape == (6, 4)
    assert [LABELS[PATHS.index(path)] for path in known.paths] == [0, 0, 0, 1, 1, 1]


def test_a_file_and_back(tmp_path):
    known = learn_familiarity(SMALL, LABELS, PATHS, FOLDS, 0.95)
    known.save(tmp_path / "known.npz")
    with np.load(tmp_path / "known.npz") as kept:
        assert kept["bank"].dtype == np.float16
    again = Familiarity.load(tmp_path / "known.npz")
    np.testing.assert_array_equal(again.bank, known.bank)
    assert (again.paths, again.threshold) == (known.paths, known.threshold)
