import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from nutclf.evaluate.baselines import BASELINES, judge

LABELS = np.repeat([0, 1, 2], 20)
FOLDS = np.arange(60) % 5


def blobs(spread):
    """Three classes in eight dimensions, about centres 4 apart."""
    return 3 * np.eye(3, 8)[LABELS] + np.random.default_rng(0).normal(0, spread, (60, 8))


@pytest.mark.parametrize("name", ["random forest", "logistic regression"])
def test_a_baseline_learns_what_can_be_learnt(name):
    judged = judge(BASELINES[name](0), (blobs(0.3), LABELS), FOLDS, blobs(0.3), 3)
    assert judged.valid.argmax(axis=1).tolist() == LABELS.tolist()
    assert np.mean(judged.held_out.argmax(axis=1) == LABELS) >= 0.95
    np.testing.assert_allclose(judged.held_out.sum(axis=1), 1)


def test_the_majority_class_is_the_same_answer_for_all():
    labels, folds = np.array([2, 2, 2, 2, 0, 0]), np.array([0, 1, 0, 1, 0, 1])
    judged = judge(BASELINES["majority class"](0), (np.zeros((6, 2)), labels), folds, blobs(1), 3)
    assert judged.held_out.tolist() == [[0, 0, 1]] * 6, "class 1 has a column, and no image"
    assert judged.valid.tolist() == [[0, 0, 1]] * 60


def test_no_image_is_judged_by_a_fit_that_saw_it():
    """The nearest neighbour of an image that was seen is itself; labels here are coin tosses."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(200, 5)), rng.integers(0, 2, 200)
    folds = rng.integers(0, 5, 200)
    judged = judge(KNeighborsClassifier(1), (features, labels), folds, features, 2)
    assert np.mean(judged.valid.argmax(axis=1) == labels) == 1, "this one saw them all"
    assert np.mean(judged.held_out.argmax(axis=1) == labels) < 0.65
    out = folds == 2
    fitted = KNeighborsClassifier(1).fit(features[~out], labels[~out])
    np.testing.assert_array_equal(judged.held_out[out], fitted.predict_proba(features[out]))


def test_a_baseline_repeats_itself_from_its_seed():
    forests = [BASELINES["random forest"](seed).set_params(n_estimators=9) for seed in (0, 0, 1)]
    train = blobs(2), LABELS
    first, again, other = (judge(f, train, FOLDS, train[0], 3).held_out for f in forests)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
