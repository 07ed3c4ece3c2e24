"""One trial, step by step: it asks for fits, judges what comes back, and records it."""

import contextlib
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np
import optuna
import pandas as pd
from optuna.trial import TrialState

from nutclf.config import Recipe, StudyConfig
from nutclf.errors import UserError
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.predictions import prediction_table
from nutclf.process import signals_deferred
from nutclf.search.study import BLOCKS_PER_FOLD, queue_again, suggest
from nutclf.track import trial_log
from nutclf.track.runs import DataRecord, Run, trial_run
from nutclf.train.jobs import ALL, Assembled, AssembleJob, FitJob, Job, Setting
from nutclf.train.workbench import FitResult

RUN_ID = "mlflow_run_id"
"""User attribute of an Optuna trial: which run holds its records."""

_FOLDS_THAT_PRUNE = 2  # later most of the work is done, and only a result counts


class TimeIsUp(Exception):
    """No new fit begins any more."""


@dataclass(frozen=True)
class OpenStudy:
    """What all trials of a study share: the study as Optuna and as MLflow know it, and its jobs'
    setting; `data` is what runs say of the data, `image_size` the input's side in pixels.
    """

    optuna: optuna.Study
    run: Run
    setting: Setting
    data: DataRecord
    image_size: int

    @property
    def config(self) -> StudyConfig:
        return self.setting.config

    def rows(self, split: str) -> pd.DataFrame:
        """The images of a split: path, label, and for "train" the fold."""
        return self.setting.data.split(split)

    def table(self, split: str, y_prob: np.ndarray) -> pd.DataFrame:
        """Predictions of a split as a table; out of fold for "train"."""
        rows = self.rows(split)
        fold = rows["fold"].to_numpy() if split == "train" else None
        labels = rows["label"].to_numpy(np.int64)
        return prediction_table(rows["path"], labels, y_prob, self.setting.data.classes, fold)


@dataclass
class Fits:
    """The fits of one run: a trial's, or those of a recipe from another seed (no `trial`)."""

    study: OpenStudy
    run: Run
    recipe: Recipe
    seed: int
    trial: optuna.Trial | None = None
    fold: int = ALL
    seconds_features: float = 0.0
    seconds_train: float = 0.0
    pruned: str = ""
    logged: set[int] = field(default_factory=set)

    def job(self, fold: int) -> FitJob:
        """The next fit."""
        self.fold, self.logged = fold, set()
        may_stop = self.trial is not None and not self.study.config.objective.cross_validated
        return FitJob(self.study.setting, self.recipe, self.seed, fold, may_stop)

    def on_epoch(self, epoch: int, figures: dict[str, float]) -> bool:
        """Logs an epoch once, whatever attempt it came from; whether the fit goes on."""
        if epoch in self.logged:
            return True
        self.logged.add(epoch)
        prefix = "" if self.fold == ALL else f"fold_{self.fold + 1}/"
        trial_log.log_epochs(self.run, {epoch: figures}, prefix)
        objective = self.study.config.objective
        if self.trial is not None and not objective.cross_validated:
            self.trial.report(figures[objective.by_epoch], epoch)
            if self.trial.should_prune():
                self.pruned = f"poorer than others after epoch {epoch}"
        return not self.pruned

    def done(self, result: FitResult) -> None:
        """Counts a fit, and logs the epochs whose message came too late."""
        for epoch, figures in enumerate(result.history.epochs, start=1):
            self.on_epoch(epoch, figures)
        if not self.seconds_train:  # the first of its fits; they are all alike
            self.run.params(result.facts)
        self.seconds_features += result.seconds_features
        self.seconds_train += result.seconds_train


Steps = Generator[Job, FitResult | Assembled, dict[str, float]]
"""Yields jobs, is sent their results, returns the metrics of the whole."""


def trial_steps(fits: Fits) -> Steps:
    """A whole trial: cross-validated if the objective says so, then the model from all images.

    Raises `optuna.TrialPruned` where it was stopped as poorer than others.
    """
    study, metrics, out_of_fold = fits.study, {}, None
    if study.config.objective.cross_validated:
        metrics, out_of_fold = yield from _cross_validate(fits)
    result = yield fits.job(ALL)
    fits.done(result)
    metrics |= trial_log.log_best(fits.run, result.history)
    assembled = yield AssembleJob(study.setting, result)
    valid = study.table("valid", assembled.y_prob)
    metadata = study.data.model_metadata(study.config.backbone, study.image_size)
    trial_log.log_model_of(fits.run, result, assembled, valid, out_of_fold, metadata)
    return metrics


def seed_steps(fits: Fits) -> Steps:
    """A recipe's value from another seed, without a model."""
    if fits.study.config.objective.cross_validated:
        metrics, _ = yield from _cross_validate(fits)
        return metrics
    result = yield fits.job(ALL)
    fits.done(result)
    return trial_log.log_best(fits.run, result.history)


def _cross_validate(fits: Fits) -> Generator[Job, FitResult, tuple[dict, pd.DataFrame]]:
    """Fits the recipe once a fold; each training image is judged by the fit that held it out."""
    study, rows, classes = fits.study, fits.study.rows("train"), fits.study.setting.data.classes
    folds, labels = rows["fold"].to_numpy(), rows["label"].to_numpy()
    y_prob = np.zeros((len(rows), len(classes)), np.float32)
    accuracies, histories = [], []
    try:
        for fold in range(folds.max() + 1):
            result = yield fits.job(fold)
            fits.done(result)
            histories.append(result.history)
            y_prob[folds == fold] = result.held_out
            right = result.held_out.argmax(axis=1) == labels[folds == fold]
            accuracies.append(float(right.mean()))
            if fits.trial is not None:
                _report_fold(fits.trial, fold, right)
    except optuna.TrialPruned:
        trial_log.log_mean_of_folds(fits.run, histories)
        raise
    if fits.trial is None:
        trial_log.log_mean_of_folds(fits.run, histories)
    table = study.table("train", y_prob)
    return trial_log.log_cross_validation(fits.run, table, classes, accuracies), table


def _report_fold(trial: optuna.Trial, fold: int, right: np.ndarray) -> None:
    blocks = np.array_split(right, min(BLOCKS_PER_FOLD, len(right)))
    for number, block in enumerate(blocks):
        trial.report(float(block.mean()), fold * BLOCKS_PER_FOLD + number)
    if fold < _FOLDS_THAT_PRUNE and trial.should_prune():
        raise optuna.TrialPruned(f"poorer than the best after fold {fold + 1}")


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: COMPLETE, PRUNED or FAIL, and a phrase for the progress line.

    `value` is None unless COMPLETE; `rate` is the value where that is a share of images.
    """

    number: int
    state: str
    value: float | None
    summary: str
    seconds: float
    rate: Rate | None = None


class LiveTrial:
    """A trial under way: its job is out, and `advance` takes the result.

    `trial` was asked of Optuna, and its recipe is not drawn yet.
    """

    def __init__(self, study: OpenStudy, trial: optuna.Trial):
        self._study, self.trial, self._started = study, trial, time.perf_counter()
        self.fits: Fits | None = None
        self.is_over = False

    def begin(self) -> Job | Outcome:
        """Draws the recipe and opens the run; the first job, or how the trial ended already."""
        return self._guarded(self._first_job)

    def _first_job(self) -> Job:
        study, config = self._study, self._study.config
        recipe = suggest(self.trial, config.space)
        name = f"t{self.trial.number:03d} · {trial_log.describe(recipe)}"
        run = trial_run(study.run, name, self.trial.number, study.data.tags)
        self.trial.set_user_attr(RUN_ID, run.run_id)
        self.fits = Fits(study, run, recipe, config.seed, self.trial)
        trial_log.log_settings(run, config, recipe, study.data, config.seed)
        self._steps = trial_steps(self.fits)
        return next(self._steps)

    def advance(self, result: FitResult | Assembled) -> Job | Outcome:
        """Takes a job's result; the next job, or how the trial ended."""
        return self._guarded(lambda: self._steps.send(result))

    def fail(self, error: Exception) -> Job | Outcome:
        """Takes a job's failure; how the trial ended."""
        if self.fits.pruned:  # the fit was stopped, as it was told to
            error = optuna.TrialPruned(self.fits.pruned)
        return self._guarded(lambda: self._steps.throw(error))

    def cut_off(self, reason: str) -> Outcome:
        """Ends the trial without a result; its recipe is queued again, and it is not counted."""
        with signals_deferred():
            study = self._study.optuna
            queue_again(study, study.get_trials(deepcopy=False)[self.trial.number], killed=False)
            return self._close(TrialState.FAIL, reason=reason)

    def _guarded(self, step: Callable[[], Job]) -> Job | Outcome:
        try:
            return step()
        except StopIteration as end:
            return self._close(TrialState.COMPLETE, end.value)
        except optuna.TrialPruned as pruned:
            return self._close(TrialState.PRUNED, reason=str(pruned))
        except TimeIsUp as error:
            return self.cut_off(str(error))
        except UserError as error:  # a person has to act, whatever the recipe
            self.cut_off(str(error))
            raise
        except Exception as error:
            # What broke the trial, a full disk say, may break this too; it is closed anyway.
            with contextlib.suppress(Exception), self.fits.run.artifacts() as folder:
                text = "".join(traceback.format_exception(error))
                (folder / "traceback.txt").write_text(text, encoding="utf-8")
            return self._close(TrialState.FAIL, reason=f"{type(error).__name__}: {error}")

    def _close(
        self, state: TrialState, metrics: dict[str, float] | None = None, reason: str = ""
    ) -> Outcome:
        """Optuna's record is the one that counts, so it is told first; the run follows it."""
        seconds, objective = time.perf_counter() - self._started, self._study.config.objective
        value, rate = None, None
        if metrics:
            value, fits = metrics[objective.metric], self.fits
            spent = {"time_features_s": fits.seconds_features, "time_train_s": fits.seconds_train}
            fits.run.metrics(spent | {"time_overhead_s": seconds - sum(spent.values())})
            if objective.cross_validated:
                n = len(self._study.rows("train"))
                rate = Rate(round(value * n), n)
        with signals_deferred():
            if reason:
                self.trial.set_user_attr("reason", reason[:2000])
            self._study.optuna.tell(self.trial, value, state=state)
            self.is_over = True
            if self.fits is not None:
                self.fits.run.end(state.name, reason)
        summary = reason.splitlines()[0][:100] if reason else trial_log.describe(self.fits.recipe)
        return Outcome(self.trial.number, state.name, value, summary, seconds, rate)
