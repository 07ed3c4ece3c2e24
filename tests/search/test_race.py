"""The race, simulated: what it stops of better and of poorer recipes."""

import numpy as np
import pytest

from nutclf.search.race import behind

IMAGES, FOLDS, STUDIES = 233, 5, 1000


def stopped_after(advantage: float, apart: float, seed: int = 0) -> np.ndarray:
    """After how many folds each of 1,000 trials is stopped; `FOLDS` where it is not.

    `advantage` is the true difference in accuracy, `apart` the share of images on which one of the
    two alone is right. On the photographs that is 0.03 to 0.08 between trials and probes as they
    are blended, 0.09 to 0.14 between two recipes without a probe, and differences of their folds
    spread as such coin tosses do (0.02 of 233 images).
    """
    rng, ends = np.random.default_rng(seed), []
    kinds = [(apart + advantage) / 2, (apart - advantage) / 2, 1 - apart]
    for _ in range(STUDIES):
        toss = rng.choice(3, size=(FOLDS, IMAGES), p=kinds)
        rival, leader = toss != 1, toss != 0  # both are right where neither alone is
        stopped = (
            fold for fold in range(1, FOLDS) if behind(rival[:fold].ravel(), leader[:fold].ravel())
        )
        ends.append(next(stopped, FOLDS))
    return np.array(ends)


@pytest.mark.parametrize("apart", [0.05, 0.09, 0.14])
def test_a_recipe_two_points_better_is_hardly_ever_stopped(apart):
    assert np.mean(stopped_after(0.02, apart) < FOLDS) <= 0.05


@pytest.mark.parametrize("apart", [0.05, 0.09, 0.14])
def test_a_recipe_three_points_worse_is_stopped_nine_times_in_ten_after_two_folds(apart):
    ends = stopped_after(-0.03, apart)
    assert np.mean(ends < FOLDS) >= 0.9
    assert ends.mean() <= 2.2


def test_equals_and_the_leader_itself_go_on():
    right = np.random.default_rng(0).random(IMAGES) < 0.8
    assert not behind(right, right)
    assert not behind(np.ones(9, bool), np.ones(9, bool))
    assert behind(np.zeros(9, bool), np.ones(9, bool))


def test_the_more_images_were_judged_the_less_may_a_trial_be_behind():
    """Two behind, with twenty images apart: two points better is possible on 300, not on 1000."""
    leader, right = np.ones(1000, bool), np.ones(1000, bool)
    right[:11], leader[11:20] = False, False
    assert not behind(right[:300], leader[:300])
    assert behind(right, leader)


def test_a_trial_that_is_ahead_goes_on_however_many_images_there_are():
    leader, right = np.zeros(100_000, bool), np.zeros(100_000, bool)
    right[0] = True
    assert not behind(right, leader)
