"""The Optuna study: opened, made, widened, or refused when it is another than was asked for."""

import dataclasses
import hashlib
import inspect
import json

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from nutclf.config import RANGES, WHOLE, Recipe, SearchSpace, StudyConfig
from nutclf.errors import UserError
from nutclf.process import signals_deferred
from nutclf.track.postgres import CONNECT, is_postgres
from nutclf.track.store import BUSY_S, Store, lock_tables, make_whole, sqlite_file
from nutclf.track.trial_log import flatten

RETRY_OF, KILLS = "retry_of", "kills"
"""User attributes of a trial that repeats another: its number, and how many drivers died in it."""

BASELINE = "baseline"
"""User attribute of a trial whose recipe is the study's baseline."""

MAX_KILLS = 3  # a recipe that kills its driver would do it again
_SIGNATURE = "signature"
STARTUP_TRIALS = 8  # drawn at random before TPE has something to go by
_MISSING, _WHOLE = "absent", "whole"
_SPACE = "space."

optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_study(
    store: Store, config: StudyConfig, facts: dict[str, str]
) -> tuple[optuna.Study, list[str]]:
    """Opens the study called `config.name`, or makes it with the baseline as its trial 0.

    Under cross-validation each depth comes next, the shallowest first, all else drawn.

    A search space that only gained choices, or a parameter whose default is the old behaviour, is
    taken over: the old trials stay, under their numbers. Only the holder of the study's lock may
    call this. `facts` are what else results depend on: the data's fingerprint, the weights' digest.

    Returns:
      The study, and the names of the parameters whose space was widened.

    Raises:
      UserError: the study there has another space, objective or data, which are listed; or the
        space cannot draw the baseline.
    """
    now, first = signature(config, facts), as_parameters(config.baseline, config.space)
    if database := sqlite_file(store.optuna_url):
        with store.lock():
            make_whole(database, lambda url: optuna.storages.RDBStorage(url).engine.dispose())
        storage = open_storage(store.optuna_url)
    else:
        with lock_tables(store):
            storage = open_storage(store.optuna_url)
    _finish_widening(storage, config)
    study = optuna.create_study(
        storage=storage,
        study_name=config.name,
        direction=config.objective.direction,
        load_if_exists=True,
    )
    widened = []
    if _SIGNATURE in study.user_attrs:
        before = json.loads(study.user_attrs[_SIGNATURE])
        changed = _changes(before, now)
        if changed:
            widened = _widened(before, changed, config)
            study = _widen(storage, study, config, widened)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(first, user_attrs={BASELINE: True})
        if config.objective.cross_validated and len(config.space.n_unfrozen) > 1:
            # Cheap ones first: they lead soon, and the race then stops dear ones that are poorer.
            for depth in sorted(config.space.n_unfrozen):
                study.enqueue_trial({"n_unfrozen": depth})
    study.set_user_attr(_SIGNATURE, json.dumps(now))
    study.pruner = pruner_for(config)
    return study, widened


def stored_digest(store: Store, name: str) -> str | None:
    """Digest of the weights that a study began with; None where there is no such study."""
    try:
        study = find_study(store, name)
    except KeyError:
        return None
    digest = json.loads(study.user_attrs.get(_SIGNATURE, "{}")).get("weights_digest")
    return None if digest is None else json.loads(digest)


def find_study(store: Store, name: str) -> optuna.Study:
    """A study to be read only. Raises `KeyError` where there is none of this name."""
    database = sqlite_file(store.optuna_url)
    if database and not database.exists():  # to open it would make it
        raise KeyError(name)
    return optuna.load_study(study_name=name, storage=open_storage(store.optuna_url))


class _Storage(optuna.storages.RDBStorage):
    """Optuna's records; a signal is heard once the call of theirs that it fell into is whole.

    Within, it would leave SQLite's file locked, or psycopg's connection in a query: that error
    would then stand for the signal (3 of 600 times).
    """


for _name, _method in vars(optuna.storages.RDBStorage).items():
    if inspect.isfunction(_method) and not _name.startswith("__"):
        setattr(_Storage, _name, signals_deferred()(_method))


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's records, in a database where others may be writing."""
    how = {"connect_args": {"timeout": BUSY_S}} if sqlite_file(url) else {}
    if is_postgres(url):  # connections of before a restart are replaced
        how = {"pool_pre_ping": True, "connect_args": CONNECT}
    return _Storage(url, how)


def sampler_for(config: StudyConfig, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of trial `number`: a function of the study's seed and that number alone.

    A sampler seeded once would repeat its draws after every restart.
    """
    digest = hashlib.sha256(f"{config.seed}/{number}".encode()).digest()
    return optuna.samplers.TPESampler(
        seed=int.from_bytes(digest[:4], "big"),
        n_startup_trials=STARTUP_TRIALS,
        multivariate=True,
    )


def pruner_for(config: StudyConfig) -> optuna.pruners.BasePruner:
    """Learning curves call for the median; folds are raced, see `nutclf.search.race`."""
    if config.objective.cross_validated:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3)


def n_done(study: optuna.Study) -> int:
    """Trials that ended COMPLETE or PRUNED: what TRIALS counts."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def n_complete(study: optuna.Study) -> int:
    """Trials that have a value."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def queue_again(study: optuna.Study, trial: FrozenTrial, killed: bool) -> bool:
    """Queues the recipe of a trial that was cut off; whether it is queued.

    To be called before the trial is told to have failed: whoever dies in between leaves a trial
    that still says RUNNING, and is not queued a second time. A driver `killed` in the trial is
    forgiven `MAX_KILLS` times.
    """
    kills = trial.user_attrs.get(KILLS, 0) + killed
    # What was drawn, or what was queued to be drawn: the end may come before the drawing.
    recipe = trial.params or trial.system_attrs.get("fixed_params", {})
    if kills > MAX_KILLS or not recipe:
        return False
    queued = {other.user_attrs.get(RETRY_OF) for other in study.get_trials(deepcopy=False)}
    if trial.number not in queued:
        own = {RETRY_OF: trial.number, KILLS: kills, BASELINE: is_baseline(trial)}
        study.enqueue_trial(recipe, user_attrs=own)
    return True


def is_baseline(trial: optuna.Trial | FrozenTrial) -> bool:
    """Whether a trial is the baseline. Before 0.3 that was trial 0, without an attribute."""
    return trial.user_attrs.get(BASELINE, trial.number == 0)


def suggest(trial: optuna.Trial, config: StudyConfig, baseline: bool) -> Recipe:
    """Draws a recipe; a field with a single choice is fixed, and not a parameter of the trial.

    The `baseline` has its own value there.
    """
    drawn = {}
    for name, values in vars(config.space).items():
        if name == "epochs":
            drawn[name] = trial.suggest_int(name, *values)
        elif name in RANGES:
            value = trial.suggest_float(name, *values, log=name == "learning_rate")
            # Two digits, which a person can read and type again; more make no difference.
            short = min(max(float(f"{value:.2g}"), values[0]), values[1])
            drawn[name] = value if baseline else short
        elif len(values) > 1:
            drawn[name] = trial.suggest_categorical(name, values)
        else:
            drawn[name] = getattr(config.baseline, name) if baseline else values[0]
    return Recipe(**drawn)


def as_parameters(recipe: Recipe, space: SearchSpace) -> dict[str, object]:
    """The parameters that make `suggest` return the baseline `recipe`, for `enqueue_trial`.

    Raises `UserError` where the space cannot draw this recipe; the message names the field.
    """
    parameters = {}
    for name, allowed in vars(space).items():
        if name not in RANGES and len(allowed) == 1:
            continue
        value = getattr(recipe, name)
        inside = allowed[0] <= value <= allowed[-1] if name in RANGES else value in allowed
        if not inside:
            raise UserError(
                f"{name}={value!r} of the baseline is outside the space {allowed}; widen the space "
                "or give the study another baseline."
            )
        parameters[name] = value
    return parameters


def signature(config: StudyConfig, facts: dict[str, str]) -> dict[str, str]:
    """Everything that two results must share to be ranked against each other, as flat text."""
    fields = dataclasses.asdict(config) | facts
    del fields["name"]
    # Through JSON, so that what was stored and what is now compare as the same kinds of value.
    return {key: json.dumps(value) for key, value in flatten(fields).items()}


def _changes(before: dict[str, str], now: dict[str, str]) -> dict[str, tuple[str, str]]:
    """What differs, as (before, now). A setting that was not known before had its default.

    Before there were test-time views, the untouched image answered.
    """
    plain = StudyConfig("", "", SearchSpace(n_unfrozen=(0,)), tta=((WHOLE,),), blend=())
    defaults = signature(plain, {})
    changed = {}
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key, _MISSING), now.get(key, _MISSING)
        if old == _MISSING and new == defaults.get(key):
            continue
        if old != new:
            changed[key] = old, new
    return changed


def _widened(
    before: dict[str, str], changed: dict[str, tuple[str, str]], config: StudyConfig
) -> list[str]:
    """The parameters that only gained choices. Raises `UserError` where anything else changed."""
    if all(_only_gains(key, old, new) for key, (old, new) in changed.items()):
        return [key.removeprefix(_SPACE) for key in changed]
    listed = "; ".join(f"{key}: {old} -> {new}" for key, (old, new) in changed.items())
    raise UserError(
        f"Study {config.name!r} was begun with other settings, so its trials cannot be ranked "
        f"against new ones ({listed}). Go on with the old settings, or begin a new study with "
        "NAME=."
    )


def _only_gains(key: str, old: str, new: str) -> bool:
    name = key.removeprefix(_SPACE)
    if not key.startswith(_SPACE) or name in RANGES or new == _MISSING:
        return False
    return set(_choices_before(name, old)) < set(json.loads(new))


def _choices_before(name: str, old: str) -> list:
    """A parameter that was not there yet had its default."""
    return [getattr(Recipe(), name)] if old == _MISSING else json.loads(old)


def _widen(
    storage: optuna.storages.RDBStorage,
    study: optuna.Study,
    config: StudyConfig,
    names: list[str],
) -> optuna.Study:
    """The study with its trials carried over to the wider space.

    Optuna refuses other choices for a parameter, so the trials are copied: first to a study aside,
    then back under the study's own name. Whoever dies in between leaves the study aside whole, and
    the next driver goes on from there.
    """
    old = json.loads(study.user_attrs[_SIGNATURE])
    aside = optuna.create_study(
        storage=storage, study_name=_aside(config), direction=config.objective.direction
    )
    for trial in study.get_trials():
        for name in names:
            choices = CategoricalDistribution(getattr(config.space, name))
            had = _choices_before(name, old.get(f"{_SPACE}{name}", _MISSING))
            fixed = trial.system_attrs.get("fixed_params")
            if fixed is not None:  # a queued recipe
                fixed.setdefault(name, had[0])
            if trial.state != TrialState.WAITING and trial.params:
                trial.params.setdefault(name, had[0])
                trial.distributions[name] = choices
        aside.add_trial(trial)
    aside.set_user_attr(_SIGNATURE, study.user_attrs[_SIGNATURE])
    aside.set_user_attr(_WHOLE, True)
    _finish_widening(storage, config)
    return optuna.load_study(study_name=config.name, storage=storage)


def _finish_widening(storage: optuna.storages.RDBStorage, config: StudyConfig) -> None:
    """Puts a finished copy in the place of its original, and drops an unfinished one."""
    names = optuna.get_all_study_names(storage)
    if _aside(config) not in names:
        return
    aside = optuna.load_study(study_name=_aside(config), storage=storage)
    if aside.user_attrs.get(_WHOLE):
        if config.name in names:
            optuna.delete_study(study_name=config.name, storage=storage)
        optuna.copy_study(
            from_study_name=_aside(config),
            from_storage=storage,
            to_storage=storage,
            to_study_name=config.name,
        )
    optuna.delete_study(study_name=_aside(config), storage=storage)


def _aside(config: StudyConfig) -> str:
    return f"{config.name} (being widened)"
