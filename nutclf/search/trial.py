"""One trial: a recipe is drawn, trained, judged and recorded; state and status always agree."""

import contextlib
import time
import traceback
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import TrialState

from nutclf.config import Recipe, StudyConfig
from nutclf.evaluate.intervals import Rate
from nutclf.process import signals_deferred
from nutclf.search.crossval import BLOCKS_PER_FOLD
from nutclf.search.records import describe, record_fit, record_settings, record_sizes
from nutclf.search.scoring import Watch, full_score
from nutclf.search.space import suggest
from nutclf.track.runs import DataRecord, Run, trial_run
from nutclf.train.workbench import Workbench

RUN_ID = "mlflow_run_id"
"""User attribute of an Optuna trial: which run holds its records."""

_FOLDS_THAT_PRUNE = 2  # later most of the work is done, and only a result counts


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
      number: of the trial.
      state: COMPLETE, PRUNED or FAIL.
      value: of the objective; None unless COMPLETE.
      summary: a phrase for the progress line.
      seconds: of wall time.
      n_images: of which `value` is the share that was right; None where it is no rate.
    """

    number: int
    state: str
    value: float | None
    summary: str
    seconds: float
    n_images: int | None = None

    @property
    def shown(self) -> str:
        """The value for a person, a rate with its interval; else the state."""
        if self.value is None:
            return self.state
        if self.n_images is None:
            return f"{self.value:.4f}"
        return str(Rate(round(self.value * self.n_images), self.n_images))


class TrialRunner:
    """Runs the trials of one study, one after another.

    Args:
      config: of the study.
      bench: trains.
      data: what the runs say of their data.
      parent: the study's run.
      folds: in which each training image is held out, int [N]; used by cross-validated objectives.
    """

    def __init__(
        self,
        config: StudyConfig,
        bench: Workbench,
        data: DataRecord,
        parent: Run,
        folds: np.ndarray | None = None,
    ):
        self._config, self._bench, self._data, self._parent = config, bench, data, parent
        self._folds = folds

    def run(self, study: optuna.Study, trial: optuna.Trial) -> Outcome:
        """Runs a trial to its end, whatever that is.

        Raises:
          KeyboardInterrupt, SystemExit: after the trial was recorded as FAIL, "interrupted".
        """
        started = time.perf_counter()
        run, value, reason = None, None, None
        try:
            recipe = suggest(trial, self._config.space)
            run = self._open_run(trial, recipe)
            record_settings(run, self._config, recipe, self._data, self._config.seed)
            value = self._train(trial, run, recipe, started)
            state = TrialState.COMPLETE
        except optuna.TrialPruned as pruned:
            state, reason = TrialState.PRUNED, str(pruned)
        except Exception as error:
            state, reason = TrialState.FAIL, f"{type(error).__name__}: {error}"
            self._keep_traceback(run)
        except BaseException:
            _close(study, trial, run, TrialState.FAIL, None, "interrupted")
            raise
        _close(study, trial, run, state, value, reason)
        summary = reason.splitlines()[0][:100] if reason else describe(recipe)
        seconds = time.perf_counter() - started
        n_images = len(self._folds) if self._config.objective.cross_validated else None
        return Outcome(trial.number, state.name, value, summary, seconds, n_images)

    def _open_run(self, trial: optuna.Trial, recipe: Recipe) -> Run:
        name = f"t{trial.number:03d} · {describe(recipe)}"
        run = trial_run(self._parent, name, trial.number, self._data.tags)
        trial.set_user_attr(RUN_ID, run.run_id)
        return run

    def _train(self, trial: optuna.Trial, run: Run, recipe: Recipe, started: float) -> float:
        """Trains and records; returns the value of the objective."""
        objective, bench = self._config.objective, self._bench
        learner = bench.learner(recipe)
        record_sizes(run, bench, learner)
        score = full_score(run, bench, learner, objective, self._folds, self._watch(trial, run))
        record_fit(run, bench, self._data, learner, score)
        spent, seconds = score.spent, time.perf_counter() - started
        run.metrics(
            {
                "time_features_s": spent.features,
                "time_train_s": spent.training,
                "time_overhead_s": seconds - spent.features - spent.training,
            }
        )
        return score.metrics[objective.metric]

    def _watch(self, trial: optuna.Trial, run: Run) -> Watch:
        """Logs each epoch, and lets Optuna prune by what counts: folds, or the valid split."""
        objective = self._config.objective

        def on_fold(fold: int, blocks: list[float]) -> None:
            for number, accuracy in enumerate(blocks):
                trial.report(accuracy, fold * BLOCKS_PER_FOLD + number)
            if fold < _FOLDS_THAT_PRUNE and trial.should_prune():
                raise optuna.TrialPruned(f"poorer than the best after fold {fold + 1}")

        def on_epoch(epoch: int, figures: dict[str, float]) -> None:
            run.metrics(figures, step=epoch)
            if objective.cross_validated:
                return
            trial.report(figures[objective.by_epoch], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned(f"poorer than others after epoch {epoch}")

        return Watch(on_fold, on_epoch)

    def _keep_traceback(self, run: Run | None) -> None:
        if run is None:
            return
        # What broke the trial, a full disk say, may break this too; the trial is closed anyway.
        with contextlib.suppress(Exception), run.artifacts() as folder:
            (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")


def _close(
    study: optuna.Study,
    trial: optuna.Trial,
    run: Run | None,
    state: TrialState,
    value: float | None,
    reason: str | None,
) -> None:
    """Optuna's record is the one that counts, so it is told first; the run follows it."""
    with signals_deferred():
        if reason:
            trial.set_user_attr("reason", reason[:2000])
        study.tell(trial, value, state=state)
        if run is not None:
            run.end(state.name, reason)
