"""What a worker does: pure functions of a job, whatever machine or process they run in.

A job carries a table of images and says whose weights to start from; a worker that finds other
images or other weights refuses it. It knows neither Optuna nor MLflow.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nutclf.config import PLAIN, Ensemble, Recipe, StudyConfig
from nutclf.data.folder import DataSet, read_split
from nutclf.errors import UserError
from nutclf.evaluate.baselines import Probe
from nutclf.evaluate.familiarity import Familiarity
from nutclf.model.backbones import load_backbone
from nutclf.model.network import predict
from nutclf.process import seed_everything
from nutclf.train.feature_store import FeatureStore
from nutclf.train.learner import OnEpoch
from nutclf.train.workbench import FitResult, Workbench

ALL = -1  # the fold of a job that holds no image out
_TIMED = 32  # photographs


@dataclass(frozen=True)
class Setting:
    """What all jobs of a study share."""

    config: StudyConfig
    data: DataSet  # the column `fold` of the training rows says where each is held out
    weights: str  # "pretrained" or "random"
    digest: str  # of the backbone's weights
    features: FeatureStore


@dataclass(frozen=True)
class FitJob:
    """One fit: a fold of a recipe, or the recipe on the whole training split."""

    setting: Setting
    recipe: Recipe
    seed: int  # of initial weights, dropout and the order of images
    fold: int = ALL  # of the images that are held out
    may_stop: bool = False  # by the driver after any epoch: the worker then waits for its word


@dataclass(frozen=True)
class ProbeJob:
    """All probes of a study."""

    setting: Setting


@dataclass(frozen=True)
class AssembleJob:
    """A fit, or a probe alone, made into the whole network that answers as an ensemble."""

    setting: Setting
    answering: FitResult | Probe
    ensemble: Ensemble = PLAIN
    probe: Probe | None = None  # the ensemble's


@dataclass(frozen=True)
class Assembled:
    """The whole network as a `.keras` file: raw pixels in, stock Keras."""

    keras_file: bytes
    y_prob: np.ndarray  # its probabilities on the valid split, float32 [n, n_classes]
    accuracy: float  # there, by the labels that the worker read
    answers_per_second: float  # photographs of the network's own size, in batches, on the worker
    familiarity: Familiarity | None = None  # with its training images


Job = FitJob | ProbeJob | AssembleJob
Result = FitResult | list[Probe] | Assembled

_bench: tuple[tuple, Workbench] | None = None


def run(job: Job, on_epoch: OnEpoch, say: Callable[[str], None]) -> Result:
    """Does a job in this process; images and network stay open for the study's next job.

    `say` takes a line of progress for a person. Raises `UserError`: the images or weights here are
    not those of the job; `NonFiniteLoss`: the recipe cannot be trained.
    """
    bench, folds = open_bench(job.setting, say), job.setting.data.split("train")["fold"].to_numpy()
    if isinstance(job, FitJob):
        rows = None if job.fold == ALL else np.flatnonzero(folds != job.fold)
        return bench.fit(job.recipe, job.seed, rows, on_epoch)
    if isinstance(job, ProbeJob):
        return bench.fit_probes(folds if job.setting.config.objective.cross_validated else None)
    return assembled(bench, job.answering, job.ensemble, job.probe, folds)


def assembled(
    bench: Workbench,
    answering: FitResult | Probe,
    ensemble: Ensemble = PLAIN,
    probe: Probe | None = None,
    folds: np.ndarray | None = None,
) -> Assembled:
    """The file of the whole network; with `folds` of the training images, what it knows of them.

    Raises what `Workbench.assemble` does.
    """
    whole, y_prob = bench.assemble(answering, ensemble, probe)
    valid = bench.splits["valid"]
    accuracy = float(np.mean(y_prob.argmax(axis=1) == valid.labels))
    some, started = valid.pixels[:_TIMED], time.perf_counter()
    predict(whole, some)
    rate = len(some) / (time.perf_counter() - started)
    known = None if folds is None else bench.familiarity(answering, ensemble, folds)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        whole.save(file)
        return Assembled(file.read_bytes(), y_prob, accuracy, rate, known)


def open_bench(setting: Setting, say: Callable[[str], None]) -> Workbench:
    """The study's images and network, opened once in a process.

    Raises `UserError`: there are none, or they are not the study's.
    """
    global _bench  # noqa: PLW0603 - a process serves one study at a time
    config, data, digest = setting.config, setting.data, setting.digest
    key = (config, data.fingerprint, digest)
    if _bench is None or _bench[0] != key:
        seed_everything(config.seed)
        backbone = load_backbone(config.backbone, setting.weights, config.image_size, digest)
        if backbone.digest != digest:
            raise UserError(
                f"This worker has other weights of {config.backbone} ({backbone.origin}, digest "
                f"{backbone.digest[:12]}) than the study ({digest[:12]}); give it the same "
                "ones with NUTCLF_WEIGHTS."
            )
        size = backbone.spec.image_size
        splits = {split: read_split(data, split, size) for split in ("train", "valid")}
        features = FeatureStore(setting.features.folder, setting.features.budget_bytes, say)
        _bench = key, Workbench(config, backbone, data.classes, splits, features, say)
    return _bench[1]
