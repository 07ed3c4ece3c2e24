"""One trial, step by step: it asks for fits, judges what comes back, and records it."""

import contextlib
import time
import traceback
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field

import numpy as np
import optuna
import pandas as pd
from optuna.trial import TrialState

from nutclf.config import PLAIN, WHOLE, Ensemble, Recipe, StudyConfig, View
from nutclf.errors import UserError, says_no_room
from nutclf.evaluate.baselines import Probe
from nutclf.evaluate.ensembles import Answers, choose
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.predictions import prediction_table
from nutclf.process import signals_deferred
from nutclf.search.race import Leader, behind
from nutclf.search.study import is_baseline, queue_again, suggest
from nutclf.track import trial_log
from nutclf.track.runs import DataRecord, Run, trial_run
from nutclf.train.jobs import ALL, AssembleJob, FitJob, Job, Result, Setting
from nutclf.train.learner import History
from nutclf.train.workbench import FitResult

RUN_ID = "mlflow_run_id"
"""User attribute of an Optuna trial: which run holds its records."""


class TimeIsUp(Exception):
    """No new fit begins any more."""


@dataclass
class OpenStudy:
    """What all trials of a study share: the study as Optuna and as MLflow know it, and its jobs'
    setting; `data` is what runs say of the data, `image_size` the input's side in pixels.

    `probes` and `leader` are there once they are known.
    """

    optuna: optuna.Study
    run: Run
    setting: Setting
    data: DataRecord
    image_size: int
    probes: list[Probe] = field(default_factory=list)
    leader: Leader | None = None

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

    def probe(self, name: str) -> Probe | None:
        """The probe called so."""
        return next((probe for probe in self.probes if probe.name == name), None)

    def leads(self, value: float, table: pd.DataFrame, ensemble: Ensemble) -> None:
        """Takes note of a trial or probe that is better than all before, by its predictions."""
        if self.leader is None or value > self.leader.value:
            right = (table["y_true"] == table["y_pred"]).to_numpy()
            self.leader = Leader(value, right, ensemble)


@dataclass
class Fits:
    """The fits of one run: a trial's, or those of a recipe from another seed (no `trial`).

    They are asked for, and judged, in one order; workers that are free begin the next ones ahead.
    """

    study: OpenStudy
    run: Run
    recipe: Recipe
    seed: int
    trial: optuna.Trial | None = None
    seconds_features: float = 0.0
    seconds_train: float = 0.0
    pruned: str = ""
    ahead: dict[int, Future] = field(default_factory=dict)  # begun before it was asked for, by fold
    _logged: set[tuple[int, int]] = field(default_factory=set)
    _left: list[int] = field(init=False)  # folds whose fit has not begun

    def __post_init__(self) -> None:
        config = self.study.config
        self._left = [*range(config.n_folds)] if config.objective.cross_validated else []
        if self.trial is not None or not self._left:
            self._left.append(ALL)

    def job(self, fold: int) -> FitJob:
        """The fit that holds this fold out."""
        if fold in self._left:
            self._left.remove(fold)
        may_stop = self.trial is not None and not self.study.config.objective.cross_validated
        return FitJob(self.study.setting, self.recipe, self.seed, fold, may_stop)

    def job_ahead(self) -> FitJob | None:
        """The next fit that will be asked for unless the trial is stopped; None after the last."""
        return self.job(self._left[0]) if self._left else None

    def on_epoch(self, fold: int, epoch: int, figures: dict[str, float]) -> bool:
        """Logs an epoch once, whatever attempt it came from; whether the fit goes on."""
        if (fold, epoch) in self._logged:
            return True
        self._logged.add((fold, epoch))
        prefix = "" if fold == ALL else f"fold_{fold + 1}/"
        trial_log.log_epochs(self.run, {epoch: figures}, prefix)
        objective = self.study.config.objective
        if self.trial is not None and not objective.cross_validated:
            self.trial.report(figures[objective.by_epoch], epoch)
            if self.trial.should_prune():
                self.pruned = f"poorer than others after epoch {epoch}"
        return not self.pruned

    def done(self, fold: int, result: FitResult) -> None:
        """Counts a fit, and logs the epochs whose message came too late."""
        for epoch, figures in enumerate(result.history.epochs, start=1):
            self.on_epoch(fold, epoch, figures)
        if not self.seconds_train:  # the first of its fits; they are all alike
            self.run.params(result.facts)
        self.seconds_features += result.seconds_features
        self.seconds_train += result.seconds_train


Steps = Generator[Job, Result, dict[str, float]]
"""Yields jobs, is sent their results, returns the metrics of the whole."""


@dataclass(frozen=True)
class Judged:
    """How images that were held out are answered; without cross-validation, the plain way."""

    metrics: dict[str, float] = field(default_factory=dict)
    table: pd.DataFrame | None = None  # their predictions
    ensemble: Ensemble = PLAIN  # that was chosen
    one_view: View = WHOLE  # that suits the network best where it answers alone


def trial_steps(fits: Fits) -> Steps:
    """A whole trial: cross-validated if the objective says so, then the model from all images.

    Raises `optuna.TrialPruned` where it was stopped as poorer than others.
    """
    judged = Judged()
    if fits.study.config.objective.cross_validated:
        judged = yield from _cross_validate(fits)
    result = yield fits.job(ALL)
    fits.done(ALL, result)
    return (yield from _model(fits.study, fits.run, result, judged, result.history))


def probe_steps(study: OpenStudy, run: Run, probe: Probe) -> Steps:
    """The records of a probe, and its model."""
    judged = Judged()
    if study.config.objective.cross_validated:
        judged = _judge(study, run, Answers(study.config.test_views, probe.held_out, {}))
    return (yield from _model(study, run, probe, judged))


def _model(
    study: OpenStudy,
    run: Run,
    answering: FitResult | Probe,
    judged: Judged,
    history: History | None = None,
) -> Steps:
    """Assembles and logs a model."""
    ensemble = judged.ensemble
    probe = study.probe(ensemble.probe)
    assembled = yield AssembleJob(study.setting, answering, ensemble, probe)
    valid = study.table("valid", assembled.y_prob)
    metrics = judged.metrics | trial_log.log_best(run, history, valid, ensemble)
    if history is not None:
        trial_log.log_curves(run, history)
    metadata = study.data.model_metadata(study.config.backbone, study.image_size)
    if judged.table is not None:
        metadata |= {"ensemble": str(ensemble), "one_view": asdict(judged.one_view)}
    trial_log.log_model_of(run, assembled, valid, judged.table, metadata)
    if judged.table is not None:
        study.leads(metrics["cv_accuracy"], judged.table, ensemble)
    return metrics


def seed_steps(fits: Fits) -> Steps:
    """A recipe's value from another seed, without a model."""
    if fits.study.config.objective.cross_validated:
        return (yield from _cross_validate(fits)).metrics
    result = yield fits.job(ALL)
    fits.done(ALL, result)
    return trial_log.log_best(fits.run, result.history)


def _cross_validate(fits: Fits) -> Generator[Job, FitResult, Judged]:
    """Fits the recipe once a fold; each training image is judged by the fit that held it out."""
    study, rows = fits.study, fits.study.rows("train")
    folds, labels = rows["fold"].to_numpy(), rows["label"].to_numpy()
    views = study.config.test_views
    shape = len(views), len(rows), len(study.setting.data.classes)
    said = {probe.name: probe.held_out for probe in study.probes}
    held_out, histories = Answers(views, np.zeros(shape, np.float32), said), []
    n_folds = folds.max() + 1
    try:
        for fold in range(n_folds):
            result = yield fits.job(fold)
            fits.done(fold, result)
            histories.append(result.history)
            held_out.network[:, folds == fold] = result.held_out
            if fits.trial is not None and fold < n_folds - 1:
                _race(fits, fold, held_out, folds <= fold, labels)
    except optuna.TrialPruned:
        trial_log.log_mean_of_folds(fits.run, histories)
        raise
    if fits.trial is None:
        trial_log.log_mean_of_folds(fits.run, histories)
    return _judge(study, fits.run, held_out)


def _judge(study: OpenStudy, run: Run, held_out: Answers) -> Judged:
    """Chooses how a model answers, and logs how it then answers images that were held out."""
    rows, classes, config = study.rows("train"), study.setting.data.classes, study.config
    folds, labels = rows["fold"].to_numpy(), rows["label"].to_numpy()
    ensembles = held_out.possible(config.ensembles)
    y_prob, ensemble = choose(held_out, ensembles, labels, folds)
    single = [each for each in ensembles if len(each.views) == 1 and not each.probe] or [PLAIN]
    of_one, alone = choose(held_out, single, labels, folds)
    others = {
        "cv_accuracy_one_view": float(np.mean(of_one.argmax(axis=1) == labels)),
        "cv_accuracy_whole": float(np.mean(held_out.network[0].argmax(axis=1) == labels)),
    }
    run.params({"ensemble": ensemble})
    run.metrics(others)
    right = y_prob.argmax(axis=1) == labels
    accuracies = [float(right[folds == fold].mean()) for fold in range(folds.max() + 1)]
    table = study.table("train", y_prob)
    metrics = trial_log.log_cross_validation(run, table, classes, accuracies) | others
    return Judged(metrics, table, ensemble, *alone.views)


def _race(fits: Fits, fold: int, held_out: Answers, judged: np.ndarray, labels: np.ndarray) -> None:
    """Reports a fold, and stops a trial that will not beat the leader, on the images so far.

    Both are asked with the leader's views, and the trial with the probe beside it that suits it
    best so far: a probe that leads has none. What Optuna hears is the leader's accuracy and the
    difference on the shared images: folds differ, and their bare accuracies would not compare.
    """
    leader = fits.study.leader
    ways = [PLAIN]
    if leader is not None:
        ways = held_out.possible(fits.study.config.ensembles)
        ways = [way for way in ways if way.views == leader.ensemble.views]
    said = [held_out.under(way)[judged].argmax(axis=1) == labels[judged] for way in ways]
    right = max(said, key=np.count_nonzero)
    value = float(right.mean())
    if leader is None:
        fits.trial.report(value, fold)
        return
    theirs = leader.right[judged]
    fits.trial.report(leader.value + value - float(theirs.mean()), fold)
    if behind(right, theirs) and not is_baseline(fits.trial):  # all is compared with that
        fits.run.metrics({"cv_accuracy_so_far": value})
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

    `trial` was asked of Optuna, and its recipe is not drawn yet. `awaited` is the driver's: the job
    that it waits for.
    """

    def __init__(self, study: OpenStudy, trial: optuna.Trial):
        self._study, self.trial, self._started = study, trial, time.perf_counter()
        self.fits: Fits | None = None
        self.awaited: Future | None = None
        self.is_over = False

    def begin(self) -> Job | Outcome:
        """Draws the recipe and opens the run; the first job, or how the trial ended already."""
        return self._guarded(self._first_job)

    def _first_job(self) -> Job:
        study, config = self._study, self._study.config
        recipe = suggest(self.trial, config, is_baseline(self.trial))
        name = f"t{self.trial.number:03d} · {trial_log.describe(recipe)}"
        run = trial_run(study.run, name, self.trial.number, study.data.tags)
        self.trial.set_user_attr(RUN_ID, run.run_id)
        self.fits = Fits(study, run, recipe, config.seed, self.trial)
        trial_log.log_settings(run, config, recipe, study.data, config.seed)
        self._steps = trial_steps(self.fits)
        return next(self._steps)

    def advance(self, result: Result) -> Job | Outcome:
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
            if says_no_room(error):  # nor has the next recipe any
                self.cut_off("no room left on the disk")
                raise
            # What broke the trial may break this too; it is closed anyway.
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
