"""A sweep: trials until the study has as many results as were asked for."""

import time
import warnings
from collections.abc import Callable

import optuna

from nutclf.config import StudyConfig
from nutclf.errors import SweepFailed
from nutclf.search.claims import Claims
from nutclf.search.crossval import BLOCKS_PER_FOLD
from nutclf.search.study import n_complete
from nutclf.search.trial import Outcome, TrialRunner

MAX_FAILURES_IN_A_ROW = 3
_MAX_ATTEMPTS_PER_TRIAL = 5  # an objective that always prunes must come to an end too


def sweep(
    study: optuna.Study,
    runner: TrialRunner,
    config: StudyConfig,
    n_trials: int,
    say: Callable[[str], None],
    claims: Claims,
    most_here: int | None = None,
) -> bool:
    """Tops the study up to `n_trials` COMPLETE trials; a study that has them is left alone.

    Args:
      study: from `open_study`.
      runner: runs each trial.
      config: of the study.
      n_trials: in all, those of earlier sweeps included; pruned and failed ones do not count.
      say: gets a line a trial.
      claims: hands out the trials, here and in other processes at the same time.
      most_here: trials to run in this process at most; None is all.

    Returns:
      Whether the study is at its end; if not, another process has to go on. It is also where five
      times as many trials as were asked for brought fewer results, and the others were pruned.

    Raises:
      SweepFailed: `MAX_FAILURES_IN_A_ROW` trials failed one after another, or so many trials
        brought no result at all.
    """
    started, at_start, failures, ran = time.perf_counter(), n_complete(study), 0, 0
    study.pruner = pruner_for(config)
    while most_here is None or ran < most_here:
        if _is_exhausted(study, n_trials, say) or (trial := claims.next(n_trials)) is None:
            return True
        outcome = runner.run(study, trial)
        ran += 1
        failures = failures + 1 if outcome.state == "FAIL" else 0
        say(progress_line(study, outcome, n_trials, time.perf_counter() - started, at_start))
        if failures >= MAX_FAILURES_IN_A_ROW:
            raise SweepFailed(
                f"the last {failures} trials failed, the last one with: {outcome.summary}"
            )
    return n_complete(study) >= n_trials


def _is_exhausted(study: optuna.Study, n_trials: int, say: Callable[[str], None]) -> bool:
    """Whether more trials would hardly bring the results that are missing."""
    attempts, done = len(study.get_trials(deepcopy=False)), n_complete(study)
    if done >= n_trials or attempts < _MAX_ATTEMPTS_PER_TRIAL * n_trials:
        return False
    if not done:
        raise SweepFailed(f"{attempts} trials brought no result")
    say(f"{attempts} trials brought {done} results, the others were stopped as poorer: enough.")
    return True


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
    best = (
        f"best {study.best_value:.4f} (trial {study.best_trial.number})" if done else "no best yet"
    )
    pace = elapsed / max(1, done - at_start)
    left = f"about {_clock(pace * (n_trials - done))} left" if done < n_trials else "done"
    return (
        f"[{done}/{n_trials}] trial {outcome.number}: {outcome.shown} · {outcome.summary} · "
        f"{outcome.seconds:.0f} s · {best} · {left}"
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d} min" if minutes else f"{seconds} s"
