"""Learning-rate schedules, as Keras callbacks: one rate an epoch."""

import math

import keras

from nutclf.config import PLATEAU, STEP, Recipe


def rate_at(recipe: Recipe, epoch: int) -> float:
    """The learning rate of epoch `epoch` (0 first) under a schedule fixed in advance.

    cosine: half a cosine from the base rate in epoch 0 towards 0 after the last epoch
    (Loshchilov & Hutter 2017, without restarts). step: times `STEP.factor` after each third of the
    training. constant, and the start of plateau: the base rate.
    """
    base = recipe.learning_rate
    if recipe.lr_schedule == "cosine":
        return base * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
    if recipe.lr_schedule == "step":
        return base * STEP.factor ** (epoch * STEP.stages // recipe.epochs)
    return base


def schedule_callback(recipe: Recipe, monitor: str) -> keras.callbacks.Callback:
    """The callback that moves the optimizer's learning rate as the recipe says.

    Args:
      recipe: names the schedule.
      monitor: the quantity, smaller is better, that "plateau" waits for.
    """
    if recipe.lr_schedule == "plateau":
        return keras.callbacks.ReduceLROnPlateau(
            monitor=monitor,
            mode="min",
            factor=PLATEAU.factor,
            patience=PLATEAU.patience,
            min_delta=PLATEAU.min_delta,
        )
    return keras.callbacks.LearningRateScheduler(lambda epoch: rate_at(recipe, epoch))
