"""A sweep: trials until the study has as many results as were asked for."""

import time
import warnings
from collections.abc import Callable

import optuna

from nutclf.config import StudyConfig
from nutclf.errors import SweepFailed
from nutclf.search.crossval import BLOCKS_PER_FOLD
from nutclf.search.study import n_complete, sampler_for
from nutclf.search.trial import Outcome, TrialRunner

MAX_FAILURES_IN_A_ROW = 3
_MAX_ATTEMPTS_PER_TRIAL = 5  # an objective that always prunes must come to an end too


def sweep(
    study: optuna.Study,
    runner: TrialRunner,
    config: StudyConfig,
    n_trials: int,
    say: Callable[[str], None],
) -> None:
    """Tops the study up to `n_trials` COMPLETE trials; a study that has them is left alone.

    Args:
      study: from `open_study`.
      runner: runs each trial.
      config: of the study.
      n_trials: in all, those of earlier sweeps included; pruned and failed ones do not count.
      say: gets a line a trial.

    Raises:
      SweepFailed: `MAX_FAILURES_IN_A_ROW` trials failed one after another.
    """
    started, at_start, failures, attempts = time.perf_counter(), n_complete(study), 0, 0
    study.pruner = pruner_for(config)
    while (done := n_complete(study)) < n_trials:
        if attempts >= _MAX_ATTEMPTS_PER_TRIAL * n_trials:
            raise SweepFailed(f"{attempts} trials brought {done - at_start} results")
        trial = study.ask()
        # Optuna draws when the trial asks for a value, so the sampler may follow the number.
        study.sampler = sampler_for(config, trial.number)
        outcome = runner.run(study, trial)
        attempts += 1
        failures = failures + 1 if outcome.state == "FAIL" else 0
        say(progress_line(study, outcome, n_trials, time.perf_counter() - started, at_start))
        if failures >= MAX_FAILURES_IN_A_ROW:
            raise SweepFailed(
                f"the last {failures} trials failed, the last one with: {outcome.summary}"
            )


def pruner_for(config: StudyConfig) -> optuna.pruners.BasePruner:
    """Paired scores of the same images call for Wilcoxon's test; learning curves for the median."""
    if config.objective.cross_validated:
        with warnings.catch_warnings():
            # Its interface may change, and this project pins Optuna.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=BLOCKS_PER_FOLD)
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3)


def progress_line(
    study: optuna.Study, outcome: Outcome, n_trials: int, elapsed: float, at_start: int
) -> str:
    """This trial, the best so far, the time left; e.g. for a terminal or a log."""
    done = n_complete(study)
    this = f"{outcome.value:.4f}" if outcome.value is not None else outcome.state
    best = (
        f"best {study.best_value:.4f} (trial {study.best_trial.number})" if done else "no best yet"
    )
    pace = elapsed / max(1, done - at_start)
    left = f"about {_clock(pace * (n_trials - done))} left" if done < n_trials else "done"
    return (
        f"[{done}/{n_trials}] trial {outcome.number}: {this} · {outcome.summary} · "
        f"{outcome.seconds:.0f} s · {best} · {left}"
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d} min" if minutes else f"{seconds} s"
