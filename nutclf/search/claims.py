"""Who runs which trial: any number of processes share one study, and none of its trials twice."""

import time
from collections.abc import Callable
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from nutclf.config import StudyConfig
from nutclf.search.study import sampler_for
from nutclf.track.liveness import alive

WORKER = "worker"
"""User attribute of an Optuna trial: which process runs it."""

RETRY_OF, RETRIES = "retry_of", "retries"
"""User attributes of a trial that repeats one whose process died: its number, and how often."""

MAX_RETRIES = 3
ABANDONED = "its process ended before it did"
_POLL_S = 1.0

CloseRun = Callable[[int, str, str], None]
"""Ends the runs of a trial that still say RUNNING: its number, its state, the reason."""


class Claims:
    """Hands out the trials of a study; a file lock makes each claim one step for all processes.

    Args:
      study: from `open_study`; its sampler is set for each trial.
      config: of the study.
      folder: of the store; the lock is in it, and what tells living workers from dead ones.
      worker: name of this process, from `liveness.hold`.
      close_run: called for trials whose process died.
    """

    def __init__(
        self, study: optuna.Study, config: StudyConfig, folder: Path, worker: str, close: CloseRun
    ):
        self._study, self._config, self._folder = study, config, folder
        self._worker, self._close = worker, close
        self._lock = lock_of(folder)

    def next(self, n_trials: int) -> optuna.Trial | None:
        """A trial to run, or None once the study has `n_trials` results.

        While as many are running as are missing, it waits: one of them may yet be pruned or fail.
        """
        while True:
            with self._lock:
                self.retry_abandoned()
                states = [trial.state for trial in self._study.get_trials(deepcopy=False)]
                done, running = states.count(TrialState.COMPLETE), states.count(TrialState.RUNNING)
                if done >= n_trials:
                    return None
                if done + running < n_trials:
                    trial = self._study.ask()
                    trial.set_user_attr(WORKER, self._worker)
                    # Optuna draws when the trial asks for a value, so the sampler may follow it.
                    self._study.sampler = sampler_for(self._config, trial.number)
                    return trial
            time.sleep(_POLL_S)

    def retry_abandoned(self) -> None:
        """Fails the trials whose process is gone, and queues their recipes again.

        To be called by a holder of the lock: a claim is written whole under it, so that a trial
        without a worker belongs to a process that died in claiming.
        """
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get(WORKER)
            if worker is None or not alive(self._folder, worker):
                fail_abandoned(self._study, trial)
                self._close(trial.number, TrialState.FAIL.name, ABANDONED)


def lock_of(folder: Path) -> FileLock:
    """What whoever hands out, or takes back, a trial of a store holds for that time."""
    return FileLock(folder / "claims.lock")


def fail_abandoned(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Fails a trial whose process died, and queues its recipe again; whether it was queued.

    To be called by a holder of the lock. The queue comes first, and takes a trial once: whoever
    dies in between leaves a trial that still says RUNNING, and the next one goes on from there.
    """
    again = _queue_again(study, trial)
    study._storage.set_trial_user_attr(trial._trial_id, "reason", ABANDONED)
    study.tell(trial.number, state=TrialState.FAIL)
    return again


def _queue_again(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Not for ever: a recipe that kills its process would do it again."""
    retries = trial.user_attrs.get(RETRIES, 0)
    # What was drawn, or what was queued to be drawn: death may come before the drawing.
    recipe = trial.params or trial.system_attrs.get("fixed_params", {})
    if retries >= MAX_RETRIES or not recipe:
        return False
    queued = {other.user_attrs.get(RETRY_OF) for other in study.get_trials(deepcopy=False)}
    if trial.number not in queued:
        study.enqueue_trial(recipe, user_attrs={RETRY_OF: trial.number, RETRIES: retries + 1})
    return True
