"""The driver of a study: asks Optuna, hands jobs to workers, records what comes back.

It alone writes the study's records, so a trial's state and its run's status cannot disagree, and
what a dead driver left RUNNING is dead: its lock went with it.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import optuna
from optuna.trial import TrialState

from nutclf.config import OBJECTIVES, StudyConfig
from nutclf.data.folder import DataSet, read_split
from nutclf.data.source import DataSource
from nutclf.errors import SweepFailed, UserError
from nutclf.evaluate.folds import make_folds
from nutclf.model.backbones import load_backbone
from nutclf.process import signals_deferred
from nutclf.search.engines import LocalProcesses, ThisProcess
from nutclf.search.study import (
    n_complete,
    n_done,
    open_study,
    queue_again,
    sampler_for,
    stored_digest,
    suggest,
)
from nutclf.search.trial import (
    Fits,
    LiveTrial,
    OpenStudy,
    Outcome,
    TimeIsUp,
    seed_steps,
)
from nutclf.track.runs import (
    STATUS,
    DataRecord,
    Run,
    running_children,
    scores_by_seed,
    study_run,
    trial_run,
)
from nutclf.track.store import EXPERIMENTS, Store, lock_study
from nutclf.track.trial_log import describe, flatten, log_settings
from nutclf.train.feature_store import FeatureStore
from nutclf.train.jobs import FitJob, Job, Setting
from nutclf.train.workbench import check_depths

N_SEEDS = 3
MAX_FAILURES_IN_A_ROW = 3
DRAWN_SIZE = 128  # pixels: a demonstration takes a minute, and the network is the real one
_ABANDONED = "its driver ended before it did"
_INTERRUPTED = "interrupted"
_NO_FOLDS = (
    "These data cannot be cross-validated: {}. Add images, or judge trials on the valid split with "
    "OBJECTIVE=valid."
)

Say = Callable[[str], None]
Engine = LocalProcesses | ThisProcess


def for_data(config: StudyConfig, kind: str) -> StudyConfig:
    """The study as it runs on a kind of data.

    Drawn images get a small input, a name of their own, and their valid split as the judge: it is
    large, and a demonstration that takes an hour is none.
    """
    if kind != "drawn":
        return config
    name, size = f"{config.name}-drawn", config.image_size or DRAWN_SIZE
    return replace(config, name=name, image_size=size, objective=OBJECTIVES["valid"])


def with_objective(config: StudyConfig, objective: str) -> StudyConfig:
    """The study judged another way: "cv", "valid", or "auto", the study's own.

    Another judge makes another study, with a name of its own: values of two cannot be ranked.
    """
    if objective == "auto" or OBJECTIVES.get(objective) == config.objective:
        return config
    if objective not in OBJECTIVES:
        raise UserError(f"objective is {objective!r}; allowed: auto, {', '.join(OBJECTIVES)}.")
    return replace(config, name=f"{config.name}-{objective}", objective=OBJECTIVES[objective])


def sweep(
    config: StudyConfig,
    source: DataSource,
    store: Store,
    features: FeatureStore,
    engine: Engine,
    say: Say,
    *,
    n_trials: int,
    timeout_s: float | None = None,
    weights: str = "pretrained",
) -> None:
    """Tops a study up to `n_trials` trials that ended COMPLETE or PRUNED.

    Nothing is recorded before all input was checked. The winner's recipe is scored from further
    seeds where there is time left.

    Args:
      config: as returned by `for_data` and `with_objective`.
      source: of the images.
      store: of the records.
      features: where features are kept.
      engine: runs the fits.
      say: takes lines for a person.
      n_trials: in all, those of earlier sweeps included.
      timeout_s: seconds from now after which no new fit begins; None for no limit.
      weights: see `nutclf.model.backbones.load_backbone`.

    Raises:
      UserError: bad input; another sweep holds the study; no trial finished in time.
      SweepFailed: `MAX_FAILURES_IN_A_ROW` trials failed one after another, or none of the trials
        came to a result.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    setting, image_size = prepare(config, source, store, features, say, weights)
    store.prepare()
    with lock_study(store, config.name):
        record = DataRecord.of(source)
        facts = {"data_fingerprint": record.fingerprint, "weights_digest": setting.digest}
        study, widened = open_study(store, config, facts)
        experiment = store.experiment_id(EXPERIMENTS[source.kind])
        run = study_run(store, experiment, config.name, record.tags)
        _log_study(run, config, widened)
        settle(study, run)
        driver = Driver(OpenStudy(study, run, setting, record, image_size), engine, say, deadline)
        try:
            driver.run_trials(n_trials)
            driver.score_winner_again()
        finally:
            # Between sweeps a study is at rest, however this one ended.
            run.close("FINISHED")
            store.checkpoint()


class Driver:
    """Runs the trials of a study, as many at once as the engine has workers.

    Args:
      study: open.
      engine: runs the fits.
      say: takes lines for a person.
      deadline: of `time.monotonic`, after which no new fit begins; None for no limit.
    """

    def __init__(self, study: OpenStudy, engine: Engine, say: Say, deadline: float | None = None):
        self._study, self._engine, self._say, self._deadline = study, engine, say, deadline
        self._live: dict[Future, LiveTrial] = {}
        self._begun: list[LiveTrial] = []

    def run_trials(self, n_trials: int) -> None:
        """Begins trials while results are missing, and takes each job's result to its trial."""
        study = self._study.optuna
        started, done_before, failures = time.perf_counter(), n_done(study), 0
        try:
            while True:
                while self._may_begin(n_trials, failures):
                    outcome = self._next_job(trial := self._ask(), trial.begin())
                    failures = self._told(outcome, failures, n_trials, started, done_before)
                if not self._live:
                    break
                self._engine.wait()
                for future in [future for future in self._live if future.done()]:
                    outcome = self._take(future)
                    failures = self._told(outcome, failures, n_trials, started, done_before)
        except BaseException:
            for trial in self._begun:
                if not trial.is_over:
                    trial.cut_off(_INTERRUPTED)
            raise
        if failures >= MAX_FAILURES_IN_A_ROW:
            raise SweepFailed(f"the last {failures} trials failed, the last one with: {self._last}")
        if not n_complete(study):
            if self._is_late():
                raise UserError(
                    "No trial was finished within TIMEOUT; what was begun is queued, and the same "
                    "command goes on. Give it more time."
                )
            raise SweepFailed(f"{n_done(study)} trials brought no result")

    def score_winner_again(self) -> None:
        """Scores the best trial's recipe from `N_SEEDS` seeds; those done before are read.

        A seed changes initial weights, dropout and the order of images; views and folds are the
        study's. The spread is written on the study's run as `winner_<metric>_mean` and `_std`.
        """
        study, config = self._study, self._study.config
        best, metric = study.optuna.best_trial, config.objective.metric
        recipe = suggest(optuna.trial.FixedTrial(best.params), config.space)
        scores = {config.seed: best.value} | scores_by_seed(study.run, best.number, metric)
        seeds = range(config.seed, config.seed + N_SEEDS)
        missing = [seed for seed in seeds if seed not in scores]
        for seed in missing:
            if self._is_late():
                return
            name = f"t{best.number:03d} · seed {seed} · {describe(recipe)}"
            run = trial_run(study.run, name, best.number, study.data.tags, kind="seed")
            with closed(run):
                log_settings(run, config, recipe, study.data, seed)
                scores[seed] = self._run_to_end(Fits(study, run, recipe, seed))[metric]
        if not missing:
            return
        values = [scores[seed] for seed in seeds]
        mean, deviation = np.mean(values), np.std(values, ddof=1)
        sentence = (
            f"Trial {best.number} from {N_SEEDS} seeds: {metric} "
            f"{', '.join(f'{value:.4f}' for value in values)}; mean {mean:.4f}, standard "
            f"deviation {deviation:.4f}."
        )
        study.run.metrics({f"winner_{metric}_mean": mean, f"winner_{metric}_std": deviation})
        study.run.tags({"winner_trial": best.number, "winner_seeds": sentence})
        self._say(sentence)

    def _may_begin(self, n_trials: int, failures: int) -> bool:
        missing = n_trials - n_done(self._study.optuna) - len(self._live)
        room = self._engine.n - len(self._live)
        healthy = failures < MAX_FAILURES_IN_A_ROW
        return missing > 0 and room > 0 and healthy and not self._is_late()

    def _ask(self) -> LiveTrial:
        study = self._study.optuna
        with signals_deferred():
            trial = study.ask()
            self._begun.append(LiveTrial(self._study, trial))
        # Optuna draws when the trial asks for a value, so the sampler may follow it.
        study.sampler = sampler_for(self._study.config, trial.number)
        return self._begun[-1]

    def _take(self, future: Future) -> Outcome | None:
        trial = self._live.pop(future)
        error = future.exception()
        following = trial.fail(error) if error else trial.advance(future.result())
        return self._next_job(trial, following)

    def _next_job(self, trial: LiveTrial, following: Job | Outcome) -> Outcome | None:
        """Hands the trial's next job to the engine; its outcome where there is none."""
        if isinstance(following, FitJob) and self._is_late():
            following = trial.fail(TimeIsUp("TIMEOUT was reached; its recipe is queued"))
        if isinstance(following, Outcome):
            return following
        self._live[self._engine.submit(following, trial.fits.on_epoch)] = trial
        return None

    def _told(
        self,
        outcome: Outcome | None,
        failures: int,
        n_trials: int,
        started: float,
        done_before: int,
    ) -> int:
        """Says how a trial ended; how many have failed in a row."""
        if outcome is None:
            return failures
        self._last = outcome.summary
        self._say(self._progress(outcome, n_trials, time.perf_counter() - started, done_before))
        return failures + 1 if outcome.state == "FAIL" and not self._is_late() else 0

    def _progress(self, outcome: Outcome, n_trials: int, elapsed: float, done_before: int) -> str:
        """This trial, the best so far, and when the sweep ends."""
        study = self._study.optuna
        done = n_done(study)
        best = (
            f"best {study.best_value:.4f} (trial {study.best_trial.number})"
            if n_complete(study)
            else "no best yet"
        )
        left = (n_trials - done) * elapsed / max(1, done - done_before)
        ends = f"about {_clock(left)} left" if done < n_trials else "done"
        if self._deadline is not None and done < n_trials:
            until = self._deadline - time.monotonic()
            ends += f", {_clock(max(0, until))} until TIMEOUT" if until < left else ""
        if outcome.value is None:
            shown = outcome.state
        else:
            shown = str(outcome.rate or f"{outcome.value:.4f}")
        return (
            f"[{done}/{n_trials}] trial {outcome.number}: {shown} · {outcome.summary} · "
            f"{outcome.seconds:.0f} s · {best} · {ends}"
        )

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _run_to_end(self, fits: Fits) -> dict[str, float]:
        """One job after another; the metrics."""
        steps = seed_steps(fits)
        job = next(steps)
        while True:
            future = self._engine.submit(job, fits.on_epoch)
            while not future.done():
                self._engine.wait()
            try:
                job = steps.send(future.result())
            except StopIteration as end:
                return end.value


def prepare(
    config: StudyConfig,
    source: DataSource,
    store: Store,
    features: FeatureStore,
    say: Say,
    weights: str,
) -> tuple[Setting, int]:
    """Checks weights, depths and images, and deals the training images into folds."""
    digest = stored_digest(store, config.name) if weights == "pretrained" else None
    backbone = load_backbone(config.backbone, weights, config.image_size, digest, say)
    check_depths(config, backbone)
    size, data = backbone.spec.image_size, source.data
    train, valid = (read_split(data, split, size, say=say) for split in ("train", "valid"))
    readable = {*train.paths, *valid.paths}
    files = data.files[data.files["path"].isin(readable)].assign(fold=-1)
    if config.objective.cross_validated:
        folds = make_folds(train, config.n_folds, config.seed, _NO_FOLDS)
        files.loc[files["split"] == "train", "fold"] = folds
    data: DataSet = replace(data, files=files.reset_index(drop=True))
    return Setting(config, data, weights, backbone.digest, features), size


def _log_study(run: Run, config: StudyConfig, widened: list[str]) -> None:
    """The study as parameters. They cannot be changed, so a wider space is told by a tag."""
    params = flatten(dataclasses.asdict(config))
    known = run.client.get_run(run.run_id).data.params
    run.params({key: value for key, value in params.items() if key not in known})
    if widened:
        run.tags({f"space.{name}": params[f"space.{name}"] for name in widened})


def settle(study: optuna.Study, run: Run) -> None:
    """Ends what a dead driver left RUNNING, and queues the recipes again.

    To be called by the holder of the study's lock.
    """
    with signals_deferred():
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            queue_again(study, trial, killed=True)
            study.tell(trial.number, state=TrialState.FAIL)
        trials = study.get_trials(deepcopy=False)
        for child in running_children(run):
            tags, state, reason = child.data.tags, TrialState.FAIL, _ABANDONED
            number = int(tags["trial_number"])
            if tags["kind"] == "trial" and number < len(trials):
                state = trials[number].state
                reason = trials[number].user_attrs.get("reason", "")
                reason = reason or (_ABANDONED if state == TrialState.FAIL else "")
            # A run without a trial: its driver died in between.
            name = state.name if state.name in STATUS else TrialState.FAIL.name
            Run(run.client, child.info.run_id).end(name, reason or None)


@contextlib.contextmanager
def closed(run: Run):
    """Ends a run as COMPLETE, or as FAIL whatever ended the work, an interrupt too."""
    try:
        yield run
    except BaseException as error:
        known = isinstance(error, Exception)
        run.end("FAIL", f"{type(error).__name__}: {error}" if known else _INTERRUPTED)
        raise
    run.end("COMPLETE")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d} min" if minutes else f"{seconds} s"
