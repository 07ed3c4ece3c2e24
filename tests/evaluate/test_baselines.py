import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nutclf.config import PROBES
from nutclf.evaluate.baselines import (
    BASELINES,
    as_dense,
    fit_linear,
    fit_probes,
    judge,
    probabilities,
)

LABELS = np.repeat([0, 1, 2], 20)
FOLDS = np.arange(60) % 5


def blobs(spread):
    """Three classes in eight dimensions, about centres 4 apart."""
    return 3 * np.eye(3, 8)[LABELS] + np.random.default_rng(0).normal(0, spread, (60, 8))


@pytest.mark.parametrize("name", ["random forest", "logistic regression"])
def test_a_baseline_learns_what_can_be_learnt(name):
    valid, held_out = judge(BASELINES[name](0), (blobs(0.3), LABELS), FOLDS, blobs(0.3), 3)
    assert valid.argmax(axis=1).tolist() == LABELS.tolist()
    assert np.mean(held_out.argmax(axis=1) == LABELS) >= 0.95
    np.testing.assert_allclose(held_out.sum(axis=1), 1)


def test_the_majority_class_is_the_same_answer_for_all():
    labels, folds = np.array([2, 2, 2, 2, 0, 0]), np.array([0, 1, 0, 1, 0, 1])
    train = np.zeros((6, 2)), labels
    valid, held_out = judge(BASELINES["majority class"](0), train, folds, blobs(1), 3)
    assert held_out.tolist() == [[0, 0, 1]] * 6, "class 1 has a column, and no image"
    assert valid.tolist() == [[0, 0, 1]] * 60


def test_no_image_is_judged_by_a_fit_that_saw_it():
    """The nearest neighbour of an image that was seen is itself; labels here are coin tosses."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(200, 5)), rng.integers(0, 2, 200)
    folds = rng.integers(0, 5, 200)
    valid, held_out = judge(KNeighborsClassifier(1), (features, labels), folds, features, 2)
    assert np.mean(valid.argmax(axis=1) == labels) == 1, "this one saw them all"
    assert np.mean(held_out.argmax(axis=1) == labels) < 0.65
    out = folds == 2
    fitted = KNeighborsClassifier(1).fit(features[~out], labels[~out])
    np.testing.assert_array_equal(held_out[out], fitted.predict_proba(features[out]))


def test_a_baseline_repeats_itself_from_its_seed():
    forests = [BASELINES["random forest"](seed).set_params(n_estimators=9) for seed in (0, 0, 1)]
    train = blobs(2), LABELS
    first, again, other = (judge(f, train, FOLDS, train[0], 3)[1] for f in forests)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "classifier",
    [
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1)),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    ],
    ids=["logistic regression", "discriminant analysis"],
)
def test_the_dense_layer_says_what_scikit_learn_says(classifier, n_classes):
    few = n_classes > LABELS
    features = (blobs(2) * np.arange(1, 9) + 5).astype(np.float32)
    fitted = classifier.fit(features[few], LABELS[few])
    found = probabilities(features, *as_dense(fitted))
    np.testing.assert_allclose(found, fitted.predict_proba(features), atol=1e-5)


def test_the_dense_layer_of_many_classes_keeps_the_digits_that_tell_them_apart():
    """What a hundred discriminants share is a thousand times what they differ in."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(100), 6)
    centres = 3 + rng.random((100, 32))
    features = (centres[labels] + rng.normal(0, 0.3, (600, 32))).astype(np.float32)
    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features, labels)
    found = probabilities(features, *as_dense(fitted))
    np.testing.assert_allclose(found, fitted.predict_proba(features), atol=1e-5)


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_learns_from_all_views_and_is_judged_by_fits_without_the_image(name):
    rng = np.random.default_rng(0)
    views = [blobs(0.3), blobs(0.5)]
    (probe,) = fit_probes([name], views, LABELS, FOLDS, views, [blobs(0.3)])
    assert probe.kernel.shape == (8, 3)
    assert probe.held_out.shape == (2, 60, 3)
    assert np.mean(probe.valid[0].argmax(axis=1) == LABELS) == 1
    np.testing.assert_allclose(probe.valid[0], probabilities(blobs(0.3), probe.kernel, probe.bias))
    noise, tossed = [rng.normal(size=(60, 400))], rng.integers(0, 3, 60)
    (lost,) = fit_probes([name], noise, tossed, FOLDS, noise, noise)
    of_all, held_out = (
        np.mean(said.argmax(axis=1) == tossed) for said in (lost.valid[0], lost.held_out[0])
    )
    assert of_all > held_out + 0.2, "coin tosses are learnt by heart, and not foretold"


def test_neither_of_both_linear_models_answers_alone():
    features = blobs(1.5)
    layers = fit_linear([features], LABELS, np.ones(60, bool))
    logits = {name: features @ kernel + bias for name, (kernel, bias) in layers.items()}
    first, second, both = (each - each.mean(axis=1, keepdims=True) for each in logits.values())
    np.testing.assert_allclose(both, (first + second * first.std() / second.std()) / 2, atol=1e-4)
