import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from nutclf.evaluate.baselines import BASELINES, judge

LABELS = np.repeat([0, 1, 2], 20)
FOLDS = np.arange(60) % 5


@pytest.fixture(scope="module")
def blobs():
    """Three classes in eight dimensions that a straight line can part."""
    rng = np.random.default_rng(0)
    centres = 3 * np.eye(3, 8)
    return centres[LABELS] + rng.normal(0, 0.3, (60, 8))


@pytest.mark.parametrize("name", ["random forest", "logistic regression"])
def test_a_baseline_learns_what_can_be_learnt(blobs, name):
    judged = judge(BASELINES[name](0), (blobs, LABELS), FOLDS, blobs, 3)
    assert judged.valid.argmax(axis=1).tolist() == LABELS.tolist()
    assert np.mean(judged.held_out.argmax(axis=1) == LABELS) >= 0.95
    np.testing.assert_allclose(judged.held_out.sum(axis=1), 1)


def test_the_majority_class_is_the_same_answer_for_all():
    labels = np.array([2, 2, 2, 2, 0, 1])
    features, folds = np.zeros((6, 2)), np.array([0, 1, 0, 1, 0, 1])
    judged = judge(BASELINES["majority class"](0), (features, labels), folds, features, 3)
    assert judged.valid.tolist() == judged.held_out.tolist() == [[0, 0, 1]] * 6


def test_no_image_is_judged_by_a_fit_that_saw_it():
    """The nearest neighbour of an image that was seen is itself; labels here are coin tosses."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(200, 5)), rng.integers(0, 2, 200)
    folds = np.arange(200) % 5
    judged = judge(KNeighborsClassifier(1), (features, labels), folds, features, 2)
    assert np.mean(judged.valid.argmax(axis=1) == labels) == 1, "this one saw them all"
    assert np.mean(judged.held_out.argmax(axis=1) == labels) < 0.65


def test_a_class_that_a_fold_lacks_gets_probability_zero_in_its_own_column():
    labels, folds = np.array([0, 2, 1, 0, 2, 0]), np.array([0, 0, 0, 1, 1, 1])
    features = np.arange(12.0).reshape(6, 2)
    judged = judge(KNeighborsClassifier(1), (features, labels), folds, features, 3)
    assert judged.held_out.shape == (6, 3)
    assert judged.held_out[folds == 0, 1].tolist() == [0, 0, 0], "only fold 0 has class 1"
    np.testing.assert_allclose(judged.held_out.sum(axis=1), 1)


def test_a_baseline_repeats_itself_from_its_seed(blobs):
    noisy = blobs + np.random.default_rng(1).normal(0, 2, blobs.shape)
    forests = [BASELINES["random forest"](seed).set_params(n_estimators=9) for seed in (0, 0, 1)]
    first, again, other = (
        judge(forest, (noisy, LABELS), FOLDS, noisy, 3).held_out for forest in forests
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
