"""Trials that one of a study's two databases has and the other lost: deleted in the UI, say."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from optuna.trial import TrialState

from nutclf.errors import UserError
from nutclf.search.study import find_study
from nutclf.track.repairs import Finding, restore_runs
from nutclf.track.runs import numbered_runs
from nutclf.track.store import Store


@dataclass(frozen=True)
class Lost:
    """What is gone of one study."""

    study: str
    own: list[str]  # id of its own run, where that was deleted
    trials: list[int]  # Optuna has results of these, and MLflow no run
    deleted: list[str]  # ids of the runs of such trials that MLflow can restore
    unknown: list[int]  # MLflow has runs of these trials, and Optuna does not know them
    n_left: int  # trials that both have results of

    def findings(self, store: Store) -> list[Finding]:
        """The same for a person."""
        whose, url, found = f"study {self.study!r}", store.tracking_uri, []
        if self.own:
            repair = partial(restore_runs, store, self.own)
            found.append(Finding("lost", f"the run of {whose} was deleted in MLflow", repair, url))
        if self.trials:
            what = f"{whose} has results of trial {_listed(self.trials)} in Optuna, and no run"
            repair = partial(restore_runs, store, self.deleted) if self.deleted else None
            found.append(Finding("lost", f"{what} of it in MLflow any more", repair, url))
        if self.unknown:
            what = f"{whose} has runs of trial {_listed(self.unknown)} in MLflow, unknown to Optuna"
            way = f"put the database back that was at {store.optuna_url}, or take another NAME="
            found.append(Finding("lost", f"{what}; {way}"))
        return found


def find_lost(store: Store, experiment_id: str, study: str) -> Lost:
    """Compares a study's trials in Optuna's records with its runs in MLflow's."""
    deleted, trials = numbered_runs(store, experiment_id, study, deleted=True), []
    there = {number for number, _ in numbered_runs(store, experiment_id, study)}
    with suppress(KeyError):
        trials = find_study(store, study).get_trials(deepcopy=False)
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    done = {trial.number for trial in trials if trial.state in ended}
    return Lost(
        study,
        [run_id for number, run_id in deleted if number is None and None not in there][:1],
        sorted(done - there),
        [run_id for number, run_id in deleted if number in done - there],
        sorted(there - {None} - {trial.number for trial in trials}),
        len(done & there),
    )


def check_complete(
    store: Store, experiment_id: str, study: str, say: Callable[[str], None]
) -> None:
    """Before a sweep goes on: says what is gone, and that a trial without a run still counts.

    Raises `UserError` where nothing is left to go on from.
    """
    # The study's own run is restored by the sweep.
    lost = replace(find_lost(store, experiment_id, study), own=[])
    said = [finding.what for finding in lost.findings(store)]
    if lost.unknown or (lost.trials and not lost.n_left):
        way = "; `make doctor FIX=1` restores it, or take another NAME=" if lost.deleted else ""
        raise UserError(f"{said[-1][0].upper()}{said[-1][1:]}{way}.")
    for what in said:
        say(f"note: {what}; it counts towards TRIALS, and is not promoted. See `make doctor`.")


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
