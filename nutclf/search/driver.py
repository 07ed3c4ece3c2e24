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
from nutclf.data.source import DRAWN, NUTS, DataSource
from nutclf.errors import SweepFailed, UserError
from nutclf.evaluate.folds import make_folds
from nutclf.evaluate.intervals import Rate
from nutclf.model import cuts
from nutclf.model.backbones import find_spec, load_backbone
from nutclf.process import signals_deferred
from nutclf.search.engines import ThisProcess, Workers
from nutclf.search.lost import check_complete
from nutclf.search.study import (
    STARTUP_TRIALS,
    is_baseline,
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
    Steps,
    TimeIsUp,
    probe_steps,
    seed_steps,
)
from nutclf.track import runs
from nutclf.track.evaluation import stored_predictions
from nutclf.track.postgres import LockLost
from nutclf.track.registry import best_run
from nutclf.track.store import Store, lock_study
from nutclf.track.trial_log import describe, flatten, log_probe, log_settings
from nutclf.train.feature_store import FeatureStore
from nutclf.train.jobs import Assembled, FitJob, Job, ProbeJob, Result, Setting
from nutclf.train.workbench import check_depths

N_SEEDS = 3
MAX_FAILURES_IN_A_ROW = 3
DRAWN_SIZE, DRAWN_VIEWS, DRAWN_DEPTH = 128, 4, 20  # pixels of a side, views, layers at most
_ABANDONED = "its driver ended before it did"
_INTERRUPTED = "interrupted"
_NO_FOLDS = (
    "These data cannot be cross-validated: {}. Add images, or judge trials on the valid split with "
    "OBJECTIVE=valid."
)

Say = Callable[[str], None]
Engine = ThisProcess | Workers


def for_data(config: StudyConfig, source: DataSource) -> StudyConfig:
    """The study as it runs on these data.

    On others than the tree nuts it has their name, too, and where a person corrected them it says
    so: another data set is another study.

    Drawn images get what makes a demonstration of a minute: a small input, few views, the valid
    split as the judge, 20 layers at most, and nothing that takes another graph or more steps.
    """
    ending = {NUTS: "", DRAWN: "-drawn"}.get(source.model, f"-{source.model}")
    if source.corrected:
        ending += f"-corrected-{source.data.fingerprint[:6]}"
    config = replace(config, name=config.name + ending)
    if source.kind != "drawn":
        return config
    depths = tuple(depth for depth in config.space.n_unfrozen if depth <= DRAWN_DEPTH)
    return replace(
        config,
        image_size=config.image_size or DRAWN_SIZE,
        n_views=DRAWN_VIEWS,
        objective=OBJECTIVES["valid"],
        space=replace(
            config.space,
            n_unfrozen=depths or config.space.n_unfrozen,
            batch_size=(64,),
            warmup_epochs=(0,),
        ),
    )


def with_backbone(config: StudyConfig, name: str) -> StudyConfig:
    """The study on another network of `keras.applications`; "" is its own.

    Depths become the next ones of that network that differ in what trains.
    """
    if name in ("", config.backbone):
        return config
    distinct = cuts.distinct_depths(find_spec(name, config.image_size).build())

    def at_least(depth: int) -> int:
        return next((each for each in distinct if each >= depth), distinct[-1])

    depths = dict.fromkeys(map(at_least, config.space.n_unfrozen))
    return replace(
        config,
        name=f"{config.name}-on-{name}",
        backbone=name,
        space=replace(config.space, n_unfrozen=tuple(depths)),
        baseline=replace(config.baseline, n_unfrozen=at_least(config.baseline.n_unfrozen)),
    )


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
    """Tops a study up to `n_trials` trials that ended COMPLETE or PRUNED, earlier sweeps included.

    Nothing is recorded before all input was checked. A winner that is a trial is scored from
    further seeds where there is time left.

    Args:
      config: as returned by `for_data` and `with_objective`.
      timeout_s: seconds from now after which no new fit begins; None for no limit.
      weights: see `nutclf.model.backbones.load_backbone`.

    Raises:
      UserError: bad input; another sweep holds the study; no trial finished in time.
      SweepFailed: `MAX_FAILURES_IN_A_ROW` trials failed one after another, or none of the trials
        came to a result.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    setting, image_size = prepare(config, source, store, features, say, weights)
    config = setting.config  # with as many folds as the images allow
    store.prepare()
    with lock_study(store, config.name) as was_lost:
        record = runs.DataRecord.of(source)
        facts = {"data_fingerprint": record.fingerprint, "weights_digest": setting.digest}
        experiment = store.experiment_id(source.model, source.data.classes)
        check_complete(store, experiment, config.name, say)
        study, widened = open_study(store, config, facts)
        run = runs.study_run(store, experiment, config.name, record.tags)
        _log_study(run, config, widened)
        settle(study, run)
        opened = OpenStudy(study, run, setting, record, image_size)
        driver = Driver(opened, engine, say, deadline, was_lost)
        try:
            driver.fit_probes()
            driver.run_trials(n_trials)
            if source.kind == "photographs":  # of drawings nobody asks how far a figure carries
                driver.score_winner_again()
        finally:
            if not driver.is_ousted:
                # Between sweeps a study is at rest, however this one ended.
                run.close("FINISHED")
                store.checkpoint()


class Driver:
    """Runs the trials of a study on the workers of an engine.

    A free worker takes the next fit of the earliest trial under way, and begins a trial where none
    has a fit left. What a trial makes of its fits does not depend on which of them ended first.
    After `deadline`, a reading of `time.monotonic`, no new fit begins. `was_lost` is the study's
    lock's, see `lock_study`; once another driver has it, this one `is_ousted` and writes nothing.
    """

    def __init__(
        self,
        study: OpenStudy,
        engine: Engine,
        say: Say,
        deadline: float | None = None,
        was_lost: Callable[[], bool] = lambda: False,
    ):
        self._study, self._engine, self._say, self._deadline = study, engine, say, deadline
        self._was_lost, self.is_ousted = was_lost, False
        self._begun: list[LiveTrial] = []
        self._live: list[LiveTrial] = []  # the earliest first
        self._out: list[Future] = []
        self._failed_in_a_row, self._last = 0, ""

    def fit_probes(self) -> None:
        """Fits the probes, seconds each once their features are there; each is recorded once.

        The best of what is recorded, trials of earlier sweeps too, leads the race.
        """
        study, config = self._study, self._study.config
        if not config.probes or self._is_late():
            return
        recorded = runs.recorded_probes(study.run)
        if not recorded:
            self._say(
                "First linear models: features of all images are made and kept for the trials."
            )
        study.probes = self._result_of(ProbeJob(study.setting))
        for probe in study.probes:
            if probe.name in recorded:
                continue
            name = f"probe · {probe.name}"
            opened = runs.trial_run(study.run, name, None, study.data.tags, "probe")
            with closed(opened) as run:
                log_probe(run, config, probe, study.data)
                metrics = self._run_to_end(probe_steps(study, run, probe))
            self._say(_probe_line(probe.name, metrics, config, len(study.rows("train"))))
        if config.objective.cross_validated:
            best = best_run(study.run.client, *study.run.study, config.objective)
            known = {str(ensemble): ensemble for ensemble in config.ensembles}
            table = stored_predictions(runs.Run(study.run.client, best.info.run_id), "cv")
            ensemble = known.get(best.data.params.get("ensemble"))
            if table is not None and ensemble is not None:
                study.leads(best.data.metrics["cv_accuracy"], table, ensemble)

    def run_trials(self, n_trials: int) -> None:
        """Begins trials while results are missing, and takes each job's result to its trial."""
        self._started, self._done_before = time.perf_counter(), n_done(self._study.optuna)
        try:
            while True:
                self._employ(n_trials)
                if not self._live:
                    break
                # It may be done already: begun ahead, and ended before it was asked for.
                while not (done := [trial for trial in self._live if trial.awaited.done()]):
                    self._wait()
                for trial in done:
                    error = trial.awaited.exception()
                    if not error and isinstance(trial.awaited.result(), Assembled):
                        self._employ(n_trials, recording=True)
                    self._follow(
                        trial,
                        trial.fail(error) if error else trial.advance(trial.awaited.result()),
                        n_trials,
                    )
        except LockLost:
            raise
        except BaseException:
            for trial in self._begun:
                if not trial.is_over:
                    trial.cut_off(_INTERRUPTED)
            raise
        if self._failed_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise SweepFailed(
                f"the last {self._failed_in_a_row} trials failed, the last one with: {self._last}"
            )
        if not n_complete(self._study.optuna):
            if self._is_late():
                raise UserError(
                    "No trial was finished within TIMEOUT; what was begun is queued, and the same "
                    "command goes on. Give it more time."
                )
            raise SweepFailed(f"{n_done(self._study.optuna)} trials brought no result")

    def score_winner_again(self) -> None:
        """Scores the best trial's recipe from `N_SEEDS` seeds; those done before are read.

        A seed changes initial weights, dropout and the order of images; views and folds are the
        study's. The spread is written on the study's run as `winner_<metric>_mean` and `_std`.
        Where a probe is what would be promoted there is nothing to score: no seed changes it.
        """
        study, config = self._study, self._study.config
        best, metric = study.optuna.best_trial, config.objective.metric
        leader = best_run(study.run.client, *study.run.study, config.objective)
        if leader.data.tags["kind"] == "probe":
            return
        recipe = suggest(optuna.trial.FixedTrial(best.params), config, is_baseline(best))
        scores = {config.seed: best.value} | runs.scores_by_seed(study.run, best.number, metric)
        seeds = range(config.seed, config.seed + N_SEEDS)
        missing = [seed for seed in seeds if seed not in scores]
        for seed in missing:
            if self._is_late():
                return
            name = f"t{best.number:03d} · seed {seed} · {describe(recipe)}"
            opened = runs.trial_run(study.run, name, best.number, study.data.tags, "seed")
            with closed(opened) as run:
                log_settings(run, config, recipe, study.data, seed)
                fits = Fits(study, run, recipe, seed)
                scores[seed] = self._run_to_end(seed_steps(fits), fits)[metric]
        if not missing:
            return
        values = [scores[seed] for seed in seeds]
        mean, deviation = np.mean(values), np.std(values, ddof=1)
        listed = ", ".join(f"{value:.4f}" for value in values)
        sentence = (
            f"Trial {best.number} from {N_SEEDS} seeds: {metric} {listed}; mean {mean:.4f}, "
            f"standard deviation {deviation:.4f}."
        )
        study.run.metrics({f"winner_{metric}_mean": mean, f"winner_{metric}_std": deviation})
        study.run.tags({"winner_trial": best.number, "winner_seeds": sentence})
        self._say(sentence)

    def _employ(self, n_trials: int, recording: bool = False) -> None:
        """Gives idle workers the fits of trials under way, and begins trials.

        While a trial is recorded only those that are drawn at random, as they need no result.
        """
        for trial in self._live:
            self._run_ahead(trial.fits)
        most = min(n_trials, STARTUP_TRIALS) if recording else n_trials
        while (
            n_done(self._study.optuna) + len(self._live) < most
            and self._has_room()
            and self._failed_in_a_row < MAX_FAILURES_IN_A_ROW
        ):
            trial = self._ask()
            self._live.append(trial)
            self._follow(trial, trial.begin(), n_trials)
            if not trial.is_over:
                self._run_ahead(trial.fits)

    def _run_ahead(self, fits: Fits) -> None:
        while self._has_room() and (job := fits.job_ahead()):
            fits.ahead[job.fold] = self._submit(job, fits)

    def _has_room(self) -> bool:
        """Whether a worker is idle and a new fit may begin."""
        self._out = [future for future in self._out if not future.done()]
        return len(self._out) < self._engine.n and not self._is_late()

    def _ask(self) -> LiveTrial:
        study = self._study.optuna
        with signals_deferred():
            trial = LiveTrial(self._study, study.ask())
            self._begun.append(trial)
        # Optuna draws when the trial asks for a value, so the sampler may follow it.
        study.sampler = sampler_for(self._study.config, trial.trial.number)
        return trial

    def _follow(self, trial: LiveTrial, following: Job | Outcome, n_trials: int) -> None:
        """Hands a trial's next job to the engine, or says how the trial ended."""
        is_new = isinstance(following, FitJob) and following.fold not in trial.fits.ahead
        if is_new and self._is_late():
            following = trial.fail(TimeIsUp("TIMEOUT was reached; its recipe is queued"))
        if not isinstance(following, Outcome):
            trial.awaited = self._submit(following, trial.fits)
            return
        self._live.remove(trial)
        for future in trial.fits.ahead.values() if trial.fits else ():
            self._engine.cancel(future)
        failed = following.state == "FAIL" and not self._is_late()
        self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        self._last = following.summary
        self._say(self._progress(following, n_trials))

    def _progress(self, outcome: Outcome, n_trials: int) -> str:
        """This trial, the best so far, and when the sweep ends."""
        study, done, best = self._study.optuna, n_done(self._study.optuna), "no best yet"
        if n_complete(study):
            best = f"best {study.best_value:.4f} (trial {study.best_trial.number})"
        ends = "done"
        if done < n_trials:
            elapsed = time.perf_counter() - self._started
            left = (n_trials - done) * elapsed / max(1, done - self._done_before)
            ends = f"about {_clock(left)} left"
            until = left if self._deadline is None else self._deadline - time.monotonic()
            ends += f", {_clock(max(0, until))} until TIMEOUT" if until < left else ""
        shown = outcome.rate or outcome.state
        if outcome.value is not None and outcome.rate is None:
            shown = f"{outcome.value:.4f}"
        return (
            f"[{done}/{n_trials}] trial {outcome.number}: {shown} · {outcome.summary} · "
            f"{outcome.seconds:.0f} s · {best} · {ends}"
        )

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _run_to_end(self, steps: Steps, fits: Fits | None = None) -> dict[str, float]:
        """The metrics of a seed or a probe."""
        job = next(steps)
        while True:
            try:
                job = steps.send(self._result_of(job, fits))
            except StopIteration as end:
                return end.value

    def _result_of(self, job: Job, fits: Fits | None = None) -> Result:
        future = self._submit(job, fits)
        while not future.done():
            if fits:
                self._run_ahead(fits)
            self._wait()
        return future.result()

    def _wait(self) -> None:
        self._engine.wait()
        self._check_lock()

    def _check_lock(self) -> None:
        """Before each write. Raises `LockLost` where another driver had the study meanwhile."""
        try:
            if not self._was_lost():
                return
            running = self._study.optuna.get_trials(states=(TrialState.RUNNING,))
            if {trial.trial.number for trial in self._live} - {trial.number for trial in running}:
                raise LockLost(
                    "PostgreSQL was away, and another sweep has settled this study meanwhile; the "
                    "same command goes on."
                )
        except LockLost:
            self.is_ousted = True
            raise
        self._say("PostgreSQL was away; the study's lock is taken again")

    def _submit(self, job: Job, fits: Fits | None) -> Future:
        """The future of a job, which may have begun before it was asked for."""
        if not isinstance(job, FitJob):
            future = self._engine.submit(job, lambda *_: True)
        elif job.fold in fits.ahead:
            return fits.ahead.pop(job.fold)
        else:

            def on_epoch(epoch: int, figures: dict[str, float]) -> bool:
                self._check_lock()
                return fits.on_epoch(job.fold, epoch, figures)

            future = self._engine.submit(job, on_epoch)
        self._out.append(future)
        return future


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
        if (n_folds := int(folds.max()) + 1) < config.n_folds:
            say(f"note: {n_folds} folds, as the rarest class has {n_folds} different images.")
            config = replace(config, n_folds=n_folds)
    data: DataSet = replace(data, files=files.reset_index(drop=True))
    return Setting(config, data, weights, backbone.digest, features), size


def _log_study(run: runs.Run, config: StudyConfig, widened: list[str]) -> None:
    """The study as parameters. They cannot be changed, so a wider space is told by a tag."""
    params = flatten(dataclasses.asdict(config))
    known = run.client.get_run(run.run_id).data.params
    run.params({key: value for key, value in params.items() if key not in known})
    if widened:
        run.tags({f"space.{name}": params[f"space.{name}"] for name in widened})


def settle(study: optuna.Study, run: runs.Run) -> None:
    """Ends what a dead driver left RUNNING, and queues the recipes again.

    To be called by the holder of the study's lock.
    """
    with signals_deferred():
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            queue_again(study, trial, killed=True)
            study.tell(trial.number, state=TrialState.FAIL)
        trials = study.get_trials(deepcopy=False)
        ended = {trial.number: trial for trial in trials if trial.state.is_finished()}
        for child in runs.running_children(run):
            state, reason, tags = "FAIL", _ABANDONED, child.data.tags
            if tags["kind"] == "trial" and (trial := ended.get(int(tags["trial_number"]))):
                state = trial.state.name
                reason = trial.user_attrs.get("reason", reason if state == "FAIL" else "")
            runs.Run(run.client, child.info.run_id).end(state, reason)


@contextlib.contextmanager
def closed(run: runs.Run):
    """Ends a run as COMPLETE, or as FAIL whatever ended the work, an interrupt too.

    Not where the study's lock was lost: the run is then another driver's to end.
    """
    try:
        yield run
    except LockLost:
        raise
    except BaseException as error:
        known = isinstance(error, Exception)
        run.end("FAIL", f"{type(error).__name__}: {error}" if known else _INTERRUPTED)
        raise
    run.end("COMPLETE")


def _probe_line(name: str, metrics: dict[str, float], config: StudyConfig, n: int) -> str:
    metric = config.objective.metric
    value = metrics[metric]
    shown = Rate(round(value * n), n) if config.objective.cross_validated else f"{value:.4f}"
    return f"probe {name}: {metric} {shown}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d} min" if minutes else f"{seconds} s"
