"""A study put together: its data, network, records and trials."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import optuna
from filelock import FileLock, Timeout

from nutclf.config import OBJECTIVES, StudyConfig
from nutclf.data.duplicates import groups_of_like, perceptual_hashes
from nutclf.data.folder import DataSet, Split, read_split
from nutclf.data.source import DataSource
from nutclf.errors import UserError
from nutclf.evaluate.folds import assign_folds
from nutclf.model.backbones import load_backbone
from nutclf.search.claims import Claims
from nutclf.search.places import Places
from nutclf.search.seeds import spread_over_seeds
from nutclf.search.study import flatten, open_study
from nutclf.search.sweep import sweep
from nutclf.search.trial import TrialRunner
from nutclf.track.liveness import hold
from nutclf.track.models import open_outbox
from nutclf.track.outbox import is_away
from nutclf.track.runs import DataRecord, Run, close_runs, running_trials, study_run
from nutclf.train.feature_store import FeatureStore
from nutclf.train.workbench import Workbench

EXPERIMENTS = {"photographs": "nutclf", "drawn": "nutclf-drawn"}
"""Experiment, and registered model, by kind of data: drawn results never mix with real ones."""

DRAWN_BACKBONES = {"mobilenetv2": "mobilenetv2-drawn"}
"""The network that stands in on drawn data: small, and pretrained on drawings."""

Say = Callable[[str], None]

_NO_FOLDS = (
    "These data cannot be cross-validated: {}. Add images, or judge trials on the valid split with "
    "OBJECTIVE=valid."
)


def for_data(config: StudyConfig, kind: str) -> StudyConfig:
    """The study as it runs on a kind of data.

    Drawn images get the small network, a name of their own, and their valid split as the judge: it
    is large, and a demonstration that takes an hour is none.
    """
    if kind != "drawn":
        return config
    backbone = DRAWN_BACKBONES.get(config.backbone, config.backbone)
    objective = OBJECTIVES["valid"]
    return replace(config, name=f"{config.name}-drawn", backbone=backbone, objective=objective)


def with_objective(config: StudyConfig, objective: str) -> StudyConfig:
    """The study judged another way: "cv", "valid", or "auto", the study's own.

    Another judge makes another study, with a name of its own: values of two cannot be ranked.
    """
    if objective == "auto" or OBJECTIVES.get(objective) == config.objective:
        return config
    if objective not in OBJECTIVES:
        raise UserError(f"objective is {objective!r}; allowed: auto, {', '.join(OBJECTIVES)}.")
    return replace(config, name=f"{config.name}-{objective}", objective=OBJECTIVES[objective])


class Session:
    """One study, open for work in this process; nothing is recorded before all input was checked.

    Args:
      config: as returned by `for_data`.
      source: of the images.
      places: where to read and write.
      say: takes lines for a person.
      weights: see `nutclf.model.backbones.load_backbone`.
    """

    def __init__(
        self,
        config: StudyConfig,
        source: DataSource,
        places: Places,
        say: Say,
        weights: str = "pretrained",
    ):
        self._config, self._say = config, say
        backbone = load_backbone(config.backbone, weights)
        splits = {
            split: labelled(source.data, split, backbone.spec.image_size, say)
            for split in ("train", "valid")
        }
        features = FeatureStore(places.features, places.feature_budget_bytes, say)
        self._bench = Workbench(config, backbone, source.data.classes, splits, features, say)
        train, cross_validated = splits["train"], config.objective.cross_validated
        self._folds = make_folds(config, train) if cross_validated else None
        self._record = data_record(source)
        self._store = places.store.prepare()
        facts = {"data_fingerprint": self._record.fingerprint, "weights_digest": backbone.digest}
        self._study = open_study(self._store, config, facts)
        experiment = self._store.experiment_id(EXPERIMENTS[source.kind])
        outbox = open_outbox(self._store)
        self._parent = study_run(self._store, experiment, config.name, self._record.tags, outbox)
        self._parent.params(flatten(dataclasses.asdict(config)))

    def work(self, n_trials: int, most_here: int | None = None) -> bool:
        """Runs trials until the study has `n_trials` results, or `most_here` ran in this process.

        Returns:
          Whether the study is full; its winner was then scored from further seeds, too.
        """
        folder = self._store.folder
        try:
            self._deliver()
            settle(self._study, self._parent)
            with hold(folder) as worker:
                close = functools.partial(close_runs, self._parent)
                claims = Claims(self._study, self._config, folder, worker, close)
                runner = TrialRunner(
                    self._config, self._bench, self._record, self._parent, self._folds
                )
                full = sweep(
                    self._study, runner, self._config, n_trials, self._say, claims, most_here
                )
                if full:
                    self._score_winner_again(worker)
            return full
        finally:
            # Between sweeps a study is at rest, however this one ended.
            self._parent.close("FINISHED")
            self._deliver()
            self._store.checkpoint()

    def _deliver(self) -> None:
        """Hands an MLflow server what it missed while it was away."""
        outbox = self._parent.outbox
        if outbox is not None and (waiting := outbox.deliver_all(self._parent.client)):
            self._say(
                f"MLflow at {self._store.tracking_uri} is away: {waiting} records wait in "
                f"{outbox.folder}; the next sweep delivers them."
            )

    def _score_winner_again(self, worker: str) -> None:
        """In one process of those that work on the study; the others have nothing left to do."""
        with contextlib.suppress(Timeout), FileLock(self._store.folder / "seeds.lock", timeout=0):
            try:
                spread_over_seeds(
                    self._study,
                    self._config,
                    self._bench,
                    self._record,
                    self._parent,
                    self._folds,
                    self._say,
                    worker,
                )
            except Exception as error:
                if not is_away(error):
                    raise
                # Which seeds were scored is MLflow's to say; the trials themselves are all kept.
                self._say("The winner's other seeds wait for MLflow; the next sweep scores them.")


def settle(study: optuna.Study, parent: Run) -> None:
    """Ends runs that say RUNNING although their trial has ended: a process died between the two."""
    trials = study.get_trials(deepcopy=False)
    for number in running_trials(parent):
        if number < len(trials) and trials[number].state.is_finished():
            trial = trials[number]
            close_runs(parent, number, trial.state.name, trial.user_attrs.get("reason"))


def make_folds(config: StudyConfig, train: Split, refusal: str = _NO_FOLDS) -> np.ndarray:
    """The fold of each training image, int [N]; images that show the same thing share one.

    Raises:
      UserError: a class has too few images; `refusal` with the reason in it.
    """
    groups = groups_of_like(train.keys, perceptual_hashes(train.pixels))
    try:
        return assign_folds(train.labels, groups, config.n_folds, config.seed)
    except ValueError as error:
        raise UserError(refusal.format(error)) from error


def labelled(data: DataSet, split: str, size: int, say: Say) -> Split:
    """Reads a split; files that cannot be read are named to the person."""
    return read_split(data, split, size, say=say)


def data_record(source: DataSource) -> DataRecord:
    """What runs say of their data."""
    folder = source.data
    files = folder.files.assign(label=[folder.classes[i] for i in folder.files["label"]])
    return DataRecord(files, folder.classes, folder.root, folder.fingerprint, source.kind)
