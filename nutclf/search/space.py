"""The search space as Optuna draws from it."""

import dataclasses

import optuna

from nutclf.config import RANGES, Recipe, SearchSpace
from nutclf.errors import UserError


def suggest(trial: optuna.Trial, space: SearchSpace) -> Recipe:
    """Draws a recipe; a field with a single choice is fixed, and not a parameter of the trial."""
    return Recipe(
        n_unfrozen=_choice(trial, "n_unfrozen", space.n_unfrozen),
        dropout_rate=trial.suggest_float("dropout_rate", *space.dropout_rate),
        epochs=trial.suggest_int("epochs", *space.epochs),
        lr_schedule=_choice(trial, "lr_schedule", space.lr_schedule),
        learning_rate=trial.suggest_float("learning_rate", *space.learning_rate, log=True),
        batch_size=_choice(trial, "batch_size", space.batch_size),
        warmup_epochs=_choice(trial, "warmup_epochs", space.warmup_epochs),
        label_smoothing=_choice(trial, "label_smoothing", space.label_smoothing),
        weight_decay=_choice(trial, "weight_decay", space.weight_decay),
        batch_norm=_choice(trial, "batch_norm", space.batch_norm),
    )


def _choice(trial: optuna.Trial, name: str, choices: tuple):
    return choices[0] if len(choices) == 1 else trial.suggest_categorical(name, choices)


def as_parameters(recipe: Recipe, space: SearchSpace) -> dict[str, object]:
    """The parameters that make `suggest` return `recipe`, for `Study.enqueue_trial`.

    Raises:
      UserError: the space cannot draw this recipe; the message names the field.
    """
    parameters = {}
    for name, value in dataclasses.asdict(recipe).items():
        allowed = getattr(space, name, (value,))
        is_range = name in RANGES
        inside = allowed[0] <= value <= allowed[-1] if is_range else value in allowed
        if not inside:
            raise UserError(
                f"{name}={value!r} of the baseline is outside the space {allowed}; widen the space "
                "or give the study another baseline."
            )
        if is_range or len(allowed) > 1:
            parameters[name] = value
    return parameters
