"""Records that say RUNNING although the process that wrote them has ended."""

import functools

from optuna.trial import FrozenTrial, TrialState

from nutclf.search.claims import ABANDONED, WORKER, fail_abandoned, lock_of
from nutclf.search.pairs import Pairs, key_of
from nutclf.track.doctor.finding import Finding
from nutclf.track.doctor.records import RUNNING, RunRecord, end_run
from nutclf.track.liveness import workers


def find_stale_trials(pairs: Pairs) -> list[Finding]:
    """Trials that say RUNNING although their process has ended."""
    return [
        Finding(
            "stale",
            f"trial {trial.number} of study {name!r} says RUNNING, and its process is gone",
            functools.partial(_fail, pairs, name, trial),
        )
        for (name, _), trial in pairs.trials.items()
        if trial.state == TrialState.RUNNING
        and pairs.is_gone(trial.user_attrs.get(WORKER), trial.datetime_start)
    ]


def find_stale_runs(pairs: Pairs) -> list[Finding]:
    """Runs of ours that say RUNNING, belong to no trial, and whose process has ended."""
    named = {pairs.run_id_of(trial) for trial in pairs.trials.values()}
    return [
        Finding(
            "stale",
            f"run {run.name!r} of study {run.study!r} says RUNNING, and its process is gone",
            functools.partial(_end, pairs, run),
        )
        for run in pairs.runs
        if run.status == RUNNING
        and run.kind  # what others record beside us is not ours to judge
        and not run.deleted
        and run.run_id not in named
        and not (run.kind == "trial" and key_of(run) in pairs.trials)
        and _is_over(pairs, run)
    ]


def _is_over(pairs: Pairs, run: RunRecord) -> bool:
    """Whether whoever wrote a run that belongs to no trial is gone."""
    if run.kind != "study":
        return pairs.is_gone(run.worker, run.started)
    # It is the run of all processes that ever worked on the study.
    at_work = workers(pairs.store.folder)
    of_study = (trial for (name, _), trial in pairs.trials.items() if name == run.study)
    names = {trial.user_attrs[WORKER] for trial in of_study if WORKER in trial.user_attrs}
    return not at_work and pairs.is_gone(next(iter(names), None), run.started)


def _fail(pairs: Pairs, name: str, trial: FrozenTrial) -> str:
    study = pairs.studies[name]
    pairs.backups.before_changing(pairs.store.optuna_url)
    with lock_of(pairs.store.folder):
        if study.get_trials(deepcopy=False)[trial.number].state != TrialState.RUNNING:
            return "a sweep that was started since has seen to it"
        again = fail_abandoned(study, trial)
    for run in pairs.of(name, trial):
        if run.status == RUNNING and not run.deleted:
            pairs.tell(run, TrialState.FAIL.name, ABANDONED)
    recipe = "its recipe waits to be run again" if again else "its recipe is given up"
    return f"trial {trial.number} is FAIL and its run FAILED ({ABANDONED}); {recipe}"


def _end(pairs: Pairs, run: RunRecord) -> str:
    if run.kind == "study":  # between sweeps a study is at rest, however the last one ended
        pairs.backups.before_changing(pairs.store.tracking_uri)
        end_run(pairs.store, run, "FINISHED", {})
        return f"run {run.name!r} is FINISHED, as a study is between sweeps"
    pairs.tell(run, TrialState.FAIL.name, ABANDONED)
    return f"run {run.name!r} is FAILED ({ABANDONED})"
