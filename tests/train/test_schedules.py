import math

import keras
import numpy as np
import pytest

from nutclf.config import PLATEAU, STEP, Recipe
from nutclf.train.schedules import rate_at, schedule_callback

BASE = 8e-4
LENGTHS = (1, 2, 3, 4, 7, 9, 12)


def played(recipe: Recipe, losses: list[float]) -> list[float]:
    """The rate of each epoch when the watched loss goes as scripted."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(recipe.learning_rate))
    callback = schedule_callback(recipe, "val_cross_entropy")
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch, loss in enumerate(losses):
        callback.on_epoch_begin(epoch, {})
        rates.append(float(model.optimizer.learning_rate))
        callback.on_epoch_end(epoch, {"val_cross_entropy": loss, "loss": 0.0})
    return rates


def fixed(schedule: str, epochs: int) -> list[float]:
    recipe = Recipe(lr_schedule=schedule, epochs=epochs, learning_rate=BASE)
    return played(recipe, [1.0] * epochs)


@pytest.mark.parametrize("epochs", LENGTHS)
def test_constant_stays_at_the_base_rate(epochs):
    np.testing.assert_allclose(fixed("constant", epochs), [BASE] * epochs, rtol=1e-6)


@pytest.mark.parametrize("epochs", LENGTHS)
def test_cosine_goes_down_half_a_wave_and_never_to_zero(epochs):
    rates = fixed("cosine", epochs)
    # cos² of half the angle is another way to write (1 + cos) / 2.
    expected = [BASE * math.cos(math.pi * e / (2 * epochs)) ** 2 for e in range(epochs)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert rates[0] == pytest.approx(BASE)
    assert 0 < rates[-1] <= BASE
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("epochs", "stages"),
    [
        (1, [0]),
        (2, [0, 1]),
        (3, [0, 1, 2]),
        (4, [0, 0, 1, 2]),
        (7, [0, 0, 0, 1, 1, 2, 2]),
        (9, [0, 0, 0, 1, 1, 1, 2, 2, 2]),
        (12, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]),
    ],
)
def test_step_falls_tenfold_after_each_third(epochs, stages):
    assert (STEP.factor, STEP.stages) == (0.1, 3)
    np.testing.assert_allclose(fixed("step", epochs), [BASE / 10**s for s in stages], rtol=1e-5)


def plateau(losses: list[float]) -> list[float]:
    recipe = Recipe(lr_schedule="plateau", epochs=len(losses), learning_rate=BASE)
    return [rate / BASE for rate in played(recipe, losses)]


def test_plateau_halves_the_rate_after_an_epoch_without_gain():
    assert (PLATEAU.factor, PLATEAU.patience) == (0.5, 1)
    #            falls  falls  same   falls  worse  worse  falls
    rates = plateau([3.0, 2.0, 2.0, 1.0, 1.5, 1.2, 0.5])
    np.testing.assert_allclose(rates, [1, 1, 1, 0.5, 0.5, 0.25, 0.125], rtol=1e-5)


def test_plateau_takes_a_gain_below_its_threshold_for_none():
    assert PLATEAU.min_delta == 1e-3
    np.testing.assert_allclose(plateau([1.0, 0.9995, 0.9]), [1, 1, 0.5], rtol=1e-5)
    np.testing.assert_allclose(plateau([1.0, 0.9985, 0.9]), [1, 1, 1], rtol=1e-5)


def test_plateau_begins_at_the_base_rate():
    assert rate_at(Recipe(lr_schedule="plateau", learning_rate=BASE), 0) == BASE
