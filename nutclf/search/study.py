"""The Optuna study: opened or made, refused when it is not the one that was asked for."""

import dataclasses
import hashlib
import json

import optuna
from filelock import FileLock
from optuna.trial import TrialState

from nutclf.config import StudyConfig
from nutclf.errors import UserError
from nutclf.search.space import as_parameters
from nutclf.track.store import Store

_SIGNATURE = "signature"
_STARTUP_TRIALS = 8  # drawn at random before TPE has something to go by

optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_study(store: Store, config: StudyConfig, facts: dict[str, str]) -> optuna.Study:
    """Opens the study called `config.name`, or makes it with the baseline as its trial 0.

    Args:
      store: says where.
      config: of the study.
      facts: what else results depend on: fingerprint of the data, digest of the weights.

    Raises:
      UserError: the study there has another space, objective or data; the differences are listed.
        Or the space cannot draw the baseline.
    """
    signature, first = _signature(config, facts), as_parameters(config.baseline, config.space)
    with FileLock(store.folder / "store.lock"):
        storage = open_storage(store.optuna_url)
        known = {study.study_name for study in optuna.get_all_study_summaries(storage)}
        study = optuna.create_study(
            storage=storage,
            study_name=config.name,
            direction=config.objective.direction,
            load_if_exists=True,
        )
        if config.name in known and _SIGNATURE in study.user_attrs:
            _refuse_changes(config.name, json.loads(study.user_attrs[_SIGNATURE]), signature)
        else:
            study.set_user_attr(_SIGNATURE, json.dumps(signature))
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(first)
    return study


def find_study(store: Store, name: str) -> optuna.Study:
    """A study that is there, to be read only.

    Raises:
      KeyError: there is none of this name.
    """
    return optuna.load_study(study_name=name, storage=open_storage(store.optuna_url))


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's records. SQLite lets one process write at a time: the others wait a minute."""
    patient = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None
    return optuna.storages.RDBStorage(url, patient)


def sampler_for(config: StudyConfig, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of trial `number`: a function of the study's seed and that number alone.

    A sampler seeded once would repeat its draws in every worker and after every restart.
    """
    digest = hashlib.sha256(f"{config.seed}/{number}".encode()).digest()
    return optuna.samplers.TPESampler(
        seed=int.from_bytes(digest[:4], "big"),
        n_startup_trials=_STARTUP_TRIALS,
        multivariate=True,
    )


def n_complete(study: optuna.Study) -> int:
    """How many trials came to a result."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _signature(config: StudyConfig, facts: dict[str, str]) -> dict[str, str]:
    """Everything that two results must share to be ranked against each other, as flat text."""
    fields = dataclasses.asdict(config) | facts
    del fields["name"]
    # Through JSON, so that what was stored and what is now compare as the same kinds of value.
    flat = json.loads(json.dumps(flatten(fields)))
    return {key: json.dumps(value) for key, value in flat.items()}


def flatten(fields: dict, prefix: str = "") -> dict[str, object]:
    """Nested dicts as one, with dotted keys."""
    flat = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _refuse_changes(name: str, before: dict[str, str], now: dict[str, str]) -> None:
    keys = sorted(before.keys() | now.keys())
    changed = [key for key in keys if before.get(key) != now.get(key)]
    if changed:
        listed = "; ".join(
            f"{key}: {before.get(key, 'absent')} -> {now.get(key, 'absent')}" for key in changed
        )
        raise UserError(
            f"Study {name!r} was begun with other settings, so its trials cannot be ranked against "
            f"new ones ({listed}). Go on with the old settings, or begin a new study with NAME=."
        )
