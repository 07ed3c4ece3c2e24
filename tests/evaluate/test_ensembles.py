"""Choosing how to answer: nested, so that no image has a say in its own answer."""

import numpy as np

from nutclf.config import Ensemble, View
from nutclf.evaluate.ensembles import Answers, choose

WHOLE, CROP = View(), View(0.875)
LABELS, FOLDS = np.arange(60) % 3, np.arange(60) // 3 % 5


def says(right: np.ndarray) -> np.ndarray:
    """Probabilities [60, 3] that are right where asked for."""
    said = np.where(right, LABELS, (LABELS + 1) % 3)
    return np.eye(3)[said] * 0.7 + 0.1


def test_an_ensemble_is_the_weighted_mean_of_its_views_and_its_probe():
    rng = np.random.default_rng(0)
    network, probe = rng.dirichlet(np.ones(3), (2, 60)), rng.dirichlet(np.ones(3), (2, 60))
    answers = Answers((WHOLE, CROP), network, {"p": probe})
    np.testing.assert_allclose(answers.under(Ensemble((CROP,))), network[1])
    np.testing.assert_allclose(answers.under(Ensemble((CROP, WHOLE))), network.mean(axis=0))
    blended = 0.7 * network[1] + 0.3 * probe[1]
    np.testing.assert_allclose(answers.under(Ensemble((CROP,), "p", 0.3)), blended)


def test_the_better_view_is_chosen_and_the_cheaper_of_equal_ones():
    rng = np.random.default_rng(1)
    poor, good = says(rng.random(60) < 0.4), says(rng.random(60) < 0.9)
    both = [Ensemble((WHOLE,)), Ensemble((CROP,))]
    nested, chosen = choose(Answers((WHOLE, CROP), np.stack([poor, good]), {}), both, LABELS, FOLDS)
    assert chosen == both[1]
    np.testing.assert_array_equal(nested, good)
    _, chosen = choose(Answers((WHOLE, CROP), np.stack([good, good]), {}), both, LABELS, FOLDS)
    assert chosen == both[0]


def test_no_image_has_a_say_in_how_it_is_answered():
    """One view is right in fold 0 alone, the other everywhere else."""
    network = np.stack([says(FOLDS == 0), says(FOLDS == 1)])
    both = [Ensemble((WHOLE,)), Ensemble((CROP,))]
    nested, _ = choose(Answers((WHOLE, CROP), network, {}), both, LABELS, FOLDS)
    right = nested.argmax(axis=1) == LABELS
    assert not right[FOLDS <= 1].any(), "each fold is answered by what the others prefer"


def test_many_ways_of_guessing_stay_guessing():
    """Chosen with the images' own labels, the best of 200 guesses would look skilled."""
    rng, ensembles = np.random.default_rng(2), [Ensemble((View(1 - i / 500),)) for i in range(200)]
    views = [ensemble.views[0] for ensemble in ensembles]
    shares, flattered = [], []
    for _ in range(20):
        network = rng.dirichlet(np.ones(3), (200, 60))
        nested, chosen = choose(Answers(views, network, {}), ensembles, LABELS, FOLDS)
        shares.append(np.mean(nested.argmax(axis=1) == LABELS))
        best = network[views.index(chosen.views[0])]
        flattered.append(np.mean(best.argmax(axis=1) == LABELS))
    assert abs(np.mean(shares) - 1 / 3) < 0.06
    assert np.mean(flattered) > 0.45
