"""A study put together: its data, network, records and trials."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nutclf.config import OBJECTIVES, StudyConfig
from nutclf.data.folder import ImageFolder, read_split
from nutclf.data.likeness import groups_of_like, perceptual_hashes
from nutclf.data.source import DataSource
from nutclf.errors import UserError
from nutclf.evaluate.folds import assign_folds
from nutclf.model.backbones import find_spec, load_backbone
from nutclf.search.study import flatten, open_study
from nutclf.search.sweep import sweep
from nutclf.search.trial import TrialRunner
from nutclf.track.runs import DataRecord, study_run
from nutclf.track.store import Store
from nutclf.train.store import FeatureStore
from nutclf.train.workbench import LabelledImages, Workbench

EXPERIMENTS = {"photographs": "nutclf", "drawn": "nutclf-drawn"}
"""Experiment, and registered model, by kind of data: drawn results never mix with real ones."""

DRAWN_BACKBONES = {"mobilenetv2": "mobilenetv2-drawn"}
"""The network that stands in on drawn data: small, and pretrained on drawings."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Places:
    """Where a sweep reads and writes.

    Attributes:
      store: of the records.
      features: folder of the feature store.
      feature_budget_bytes: what that folder may hold.
    """

    store: Store
    features: Path
    feature_budget_bytes: int


def for_data(config: StudyConfig, kind: str) -> StudyConfig:
    """The study as it runs on a kind of data: drawn images get the small network, and a name."""
    if kind != "drawn":
        return config
    backbone = DRAWN_BACKBONES.get(config.backbone, config.backbone)
    return replace(config, name=f"{config.name}-drawn", backbone=backbone)


def with_objective(config: StudyConfig, objective: str) -> StudyConfig:
    """The study judged another way: "cv", "valid", or "auto", the study's own."""
    if objective == "auto":
        return config
    if objective not in OBJECTIVES:
        raise UserError(f"objective is {objective!r}; allowed: auto, {', '.join(OBJECTIVES)}.")
    return replace(config, objective=OBJECTIVES[objective])


def run_sweep(
    config: StudyConfig,
    source: DataSource,
    places: Places,
    n_trials: int,
    say: Say,
    weights: str = "pretrained",
) -> None:
    """Tops a study up to `n_trials` results; nothing is recorded before all input was checked.

    Args:
      config: as returned by `for_data`.
      source: of the images.
      places: where to read and write.
      n_trials: COMPLETE trials in the study when this returns.
      say: takes lines for a person.
      weights: see `nutclf.model.backbones.load_backbone`.
    """
    backbone = load_backbone(config.backbone, weights)
    splits = {
        split: labelled(source.folder, split, backbone.spec.image_size, say)
        for split in ("train", "valid")
    }
    features = FeatureStore(places.features, places.feature_budget_bytes, say)
    bench = Workbench(config, backbone, source.folder.classes, splits, features, say)
    folds = make_folds(config, bench.splits["train"]) if config.objective.cross_validated else None
    record = data_record(source)
    store = places.store.prepare()
    facts = {"data_fingerprint": record.fingerprint, "weights_digest": backbone.digest}
    study = open_study(store, config, facts)
    parent = study_run(
        store, store.experiment_id(EXPERIMENTS[source.kind]), config.name, record.tags
    )
    parent.params(flatten(dataclasses.asdict(config)))
    try:
        sweep(study, TrialRunner(config, bench, record, parent, folds), config, n_trials, say)
    finally:
        # Between sweeps a study is at rest, however this one ended.
        parent.client.set_terminated(parent.run_id, "FINISHED")


def make_folds(config: StudyConfig, train: LabelledImages) -> np.ndarray:
    """The fold of each training image; images that show the same thing share one."""
    groups = groups_of_like(train.keys, perceptual_hashes(train.pixels))
    try:
        return assign_folds(train.labels, groups, config.n_folds, config.seed)
    except ValueError as error:
        raise UserError(
            f"These data cannot be cross-validated: {error}. Add images, or judge trials on the "
            "valid split with OBJECTIVE=valid."
        ) from error


def labelled(folder: ImageFolder, split: str, size: int, say: Say) -> LabelledImages:
    """Reads a split; files that cannot be read are named to the person."""
    loaded = read_split(folder, split, size)
    for path, reason in loaded.unreadable:
        say(f"left out {path!r}: {reason}")
    hashes = folder.split(split).set_index("path")["sha256"]
    keys = [hashes[path] for path in loaded.paths]
    return LabelledImages(loaded.images, keys, loaded.labels, loaded.paths)


def data_record(source: DataSource) -> DataRecord:
    """What runs say of their data."""
    folder = source.folder
    files = folder.files.assign(label=[folder.classes[i] for i in folder.files["label"]])
    return DataRecord(files, folder.classes, folder.root, folder.fingerprint, source.kind)


def image_size(config: StudyConfig) -> int:
    """Side of the images that the study's network takes, pixels."""
    return find_spec(config.backbone).image_size
