"""Runs in MLflow: one a study, and one a trial, its child."""

import hashlib
import json
import re
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from mlflow.utils import mlflow_tags
from PIL import Image

from nutclf.data.source import DataSource
from nutclf.errors import UserError
from nutclf.process import signals_deferred
from nutclf.track.store import Store, user_name

MAX_METRIC_NAME = 250  # characters, MLflow's

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # a second to import

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
"""An Optuna trial's state, and the status of its run: never anything else."""


@dataclass(frozen=True)
class DataRecord:
    """The data set as a run remembers it: `files` has a row an image, with path, split, label and
    sha256; `classes` are in the order of the labels; `kind` is "photographs" or "drawn"."""

    files: pd.DataFrame
    classes: tuple[str, ...]
    root: Path
    fingerprint: str
    kind: str

    @classmethod
    def of(cls, source: DataSource) -> "DataRecord":
        data = source.data
        files = data.files.assign(label=[data.classes[i] for i in data.files["label"]])
        return cls(files, data.classes, data.root, data.fingerprint, source.kind)

    @property
    def tags(self) -> dict[str, str]:
        """What every run made from these data carries."""
        return {"data_fingerprint": self.fingerprint, "data_source": self.kind}

    def model_metadata(self, backbone: str, image_size: int) -> dict[str, object]:
        """What a person needs beside a model; the class order is read from here only."""
        pixels = "RGB, 0 to 255, uint8 or float, [B, H, W, 3]"
        facts = {"classes": list(self.classes), "image_size": image_size, "pixels": pixels}
        return facts | {"backbone": backbone} | self.tags


class Run:
    """A run that exists."""

    def __init__(self, client: MlflowClient, run_id: str):
        self.client, self.run_id = client, run_id

    @cached_property
    def study(self) -> tuple[str, str]:
        """Id of the experiment, and name of the study, that the run belongs to."""
        found = self.client.get_run(self.run_id)
        return found.info.experiment_id, found.data.tags["study_name"]

    def params(self, params: Mapping[str, object]) -> None:
        """Logs parameters; None becomes "None"."""
        rows = [Param(key, str(value)) for key, value in params.items()]
        with self._whole():
            self.client.log_batch(self.run_id, params=rows)

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Logs finite numbers, all or none, under names that MLflow takes, see `_metric_names`."""
        now = int(time.time() * 1000)
        values = zip(_metric_names(metrics), metrics.values(), strict=True)
        rows = [Metric(name, float(value), now, step) for name, value in values]
        with self._whole():
            self.client.log_batch(self.run_id, metrics=rows)

    def tags(self, tags: Mapping[str, object]) -> None:
        """Sets tags; long values are cut: MLflow refuses more than 8000 characters."""
        rows = [RunTag(key, str(value)[:4000]) for key, value in tags.items()]
        with self._whole():
            self.client.log_batch(self.run_id, tags=rows)

    def _whole(self) -> AbstractContextManager:
        # A signal within SQLite's transaction leaves its file locked: nothing could be closed then.
        # A server may be away for minutes, and holds no lock of ours.
        is_remote = self.client.tracking_uri.startswith("http")
        return nullcontext() if is_remote else signals_deferred()

    @contextmanager
    def artifacts(self) -> Iterator[Path]:
        """A folder to fill; on leaving, all of it becomes artifacts of the run."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            self.client.log_artifacts(self.run_id, folder)

    def picture(self, figure: "Figure", path: str) -> None:
        """Logs a figure as the artifact `path`, and as an image for MLflow's image grid."""
        with self.artifacts() as folder:
            file = folder / path
            file.parent.mkdir()
            figure.savefig(file)
            with Image.open(file) as image:
                self.client.log_image(self.run_id, image, key=file.stem)

    def data(self, record: DataRecord) -> None:
        """Logs the list of images as the run's data set; decodes nothing."""
        with warnings.catch_warnings():
            # Two of MLflow's resolvers claim a plain folder; either serves.
            warnings.filterwarnings("ignore", message="The specified dataset source can be")
            name, digest = record.root.name[:500], record.fingerprint[:12]
            data = mlflow.data.from_pandas(record.files, str(record.root), name=name, digest=digest)
        tag = InputTag("mlflow.data.context", "training")
        logged = DatasetInput(Dataset(**data.to_dict()), [tag])
        self.client.log_inputs(self.run_id, [logged])

    def end(self, state: str, reason: str | None = None) -> None:
        """Closes the run with the status that belongs to an Optuna state."""
        self.tags({"trial_state": state} | ({"reason": reason} if reason else {}))
        self.close(STATUS[state])

    def close(self, status: str) -> None:
        with self._whole():
            self.client.set_terminated(self.run_id, status)


WITH_A_MODEL = "tags.kind != 'study' AND tags.kind != 'seed'"
"""Filter of MLflow's: a study's trials and probes."""


def file_name(study: str) -> str:
    """A study may be named anything; its files stay inside the store."""
    return re.sub(r"[^\w -]+", "-", study)


def quoted(text: str) -> str:
    """`text` as MLflow's filters take it; they know two kinds of quotes, and no escape."""
    if "'" in text and '"' in text:
        raise UserError(f"The name {text!r} has both kinds of quotes; leave one of them out.")
    return f'"{text}"' if "'" in text else f"'{text}'"


def study_run(store: Store, experiment_id: str, name: str, tags: Mapping[str, str]) -> Run:
    """The run of a study, made when it is not there yet; its trials' runs are its children.

    One that was deleted in MLflow is restored; where it was erased, the new one adopts them.
    """
    client, query = store.client(), f"tags.study_name = {quoted(name)} AND tags.kind = 'study'"
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
        order = ["attributes.start_time ASC"]
        if found := client.search_runs([experiment_id], query, view, order_by=order):
            run_id = found[0].info.run_id
            if view == ViewType.DELETED_ONLY:
                client.restore_run(run_id)
            return Run(client, run_id)
    own = {"study_name": name, "kind": "study"} | source_tags() | dict(tags)
    made = Run(client, client.create_run(experiment_id, run_name=name, tags=own).info.run_id)
    orphans = client.search_runs([experiment_id], f"tags.study_name = {quoted(name)}")
    for orphan in orphans:
        if orphan.info.run_id != made.run_id:
            Run(client, orphan.info.run_id).tags({mlflow_tags.MLFLOW_PARENT_RUN_ID: made.run_id})
    return made


def numbered_runs(
    store: Store, experiment_id: str, name: str, deleted: bool = False
) -> list[tuple[int | None, str]]:
    """Trial number and id of each run of a study; its own run has the number None.

    Without those of seeds and probes, which a sweep makes again. Those that are `deleted` in MLflow
    can be restored until `mlflow gc` erases them.
    """
    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    query = f"tags.study_name = {quoted(name)}"
    found = store.client().search_runs([experiment_id], query, view, max_results=10_000)
    ours = [run for run in found if run.data.tags.get("kind") in ("study", "trial")]
    numbers = [run.data.tags.get("trial_number") for run in ours]
    return [(n and int(n), run.info.run_id) for n, run in zip(numbers, ours, strict=True)]


def trial_run(
    parent: Run, name: str, number: int | None, tags: Mapping[str, str], kind: str = "trial"
) -> Run:
    """A new run for a trial, RUNNING, under its study's run.

    `kind` is "trial", "seed" for the recipe of that trial fitted again from another seed, or
    "probe", which has no number.
    """
    experiment_id, study_name = parent.study
    own = {mlflow_tags.MLFLOW_PARENT_RUN_ID: parent.run_id, "kind": kind, "study_name": study_name}
    own |= {"trial_state": "RUNNING"} | ({} if number is None else {"trial_number": str(number)})
    tags = own | source_tags() | dict(tags)
    made = parent.client.create_run(experiment_id, tags=tags, run_name=name)
    return Run(parent.client, made.info.run_id)


def running_children(parent: Run) -> list[MlflowRun]:
    """Runs of a study's probes, trials and seeds that say RUNNING."""
    return _children(parent, "attributes.status = 'RUNNING'")


def recorded_probes(parent: Run) -> set[str]:
    """Names of the probes of a study whose runs are finished."""
    runs = _children(parent, "tags.kind = 'probe' AND attributes.status = 'FINISHED'")
    return {run.data.params["probe"] for run in runs}


def scores_by_seed(parent: Run, number: int, metric: str) -> dict[int, float]:
    """What the recipe of a study's trial scored from each further seed that was finished."""
    trial = f"tags.kind = 'seed' AND tags.trial_number = '{number}'"
    runs = _children(parent, f"{trial} AND attributes.status = 'FINISHED'")
    return {int(run.data.params["seed"]): run.data.metrics[metric] for run in runs}


def _children(parent: Run, which: str) -> list[MlflowRun]:
    query = f"tags.`{mlflow_tags.MLFLOW_PARENT_RUN_ID}` = '{parent.run_id}' AND {which}"
    return parent.client.search_runs([parent.study[0]], query)


@cache
def source_tags() -> dict[str, str]:
    """Which code made a run: commit, whether files differed from it, and who ran it."""
    tags = {mlflow_tags.MLFLOW_SOURCE_NAME: "nutclf", mlflow_tags.MLFLOW_USER: user_name()}
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = Path(__file__).parent
    try:
        said = subprocess.check_output(command, cwd=here, stderr=subprocess.DEVNULL, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return tags | {"git_dirty": "unknown"}
    commit, _, dirty = said.decode().strip().partition("-")
    return tags | {mlflow_tags.MLFLOW_GIT_COMMIT: commit, "git_dirty": str(bool(dirty)).lower()}


def write_json(path: Path, value: object) -> None:
    """A small file that a person can read too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def _metric_names(keys: Iterable[str]) -> list[str]:
    """Names of metrics, one for each key: what MLflow refuses becomes a hyphen.

    A name that is too long, or taken, ends with a digest of the key.
    """
    names = {}
    for key in keys:
        name = re.sub(r"[^\w\-. :/]", "-", key)
        if len(name) > MAX_METRIC_NAME or name in names:
            name = f"{name[: MAX_METRIC_NAME - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        names[name] = key
    return list(names)
