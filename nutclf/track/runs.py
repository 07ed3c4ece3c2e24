"""Runs in MLflow: one a study, and one a trial, its child."""

import getpass
import json
import os
import re
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import PandasDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_SOURCE_NAME,
    MLFLOW_USER,
)

from nutclf.errors import UserError
from nutclf.track.store import Store

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
"""An Optuna trial's state, and the status of its run: never anything else."""

_MAX_TAG = 4000  # characters; MLflow refuses more than 8000


@dataclass(frozen=True)
class DataRecord:
    """The data set as a run remembers it.

    Attributes:
      files: one row an image: path, split, label, sha256.
      classes: in the order of the labels.
      root: where it lay.
      fingerprint: see `nutclf.data.folder.ImageFolder`.
      kind: "photographs" or "drawn".
    """

    files: pd.DataFrame
    classes: tuple[str, ...]
    root: Path
    fingerprint: str
    kind: str

    @property
    def tags(self) -> dict[str, str]:
        """What every run made from these data carries."""
        return {"data_fingerprint": self.fingerprint, "data_source": self.kind}


class Run:
    """One run, written to as things happen.

    Args:
      client: of the store.
      run_id: of an existing run.
    """

    def __init__(self, client: MlflowClient, run_id: str):
        self.client, self.run_id = client, run_id

    def params(self, params: Mapping[str, object]) -> None:
        """Logs parameters; None becomes "None"."""
        rows = [Param(key, str(value)) for key, value in params.items()]
        self.client.log_batch(self.run_id, params=rows)

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Logs finite numbers; one call, one transaction."""
        now = int(time.time() * 1000)
        rows = [Metric(metric_key(key), value, now, step) for key, value in metrics.items()]
        self.client.log_batch(self.run_id, metrics=rows)

    def tags(self, tags: Mapping[str, object]) -> None:
        """Sets tags; long values are cut."""
        rows = [RunTag(key, str(value)[:_MAX_TAG]) for key, value in tags.items()]
        self.client.log_batch(self.run_id, tags=rows)

    @contextmanager
    def artifacts(self) -> Iterator[Path]:
        """A folder to fill; on leaving, all of it becomes artifacts of the run."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            self.client.log_artifacts(self.run_id, folder)

    def data(self, record: DataRecord) -> None:
        """Logs the list of images as the run's data set; decodes nothing."""
        with warnings.catch_warnings():
            # Two of MLflow's resolvers claim a plain folder; either serves.
            warnings.filterwarnings("ignore", message="The specified dataset source can be")
            dataset: PandasDataset = mlflow.data.from_pandas(
                record.files,
                source=str(record.root),
                name=record.root.name[:500],
                digest=record.fingerprint[:12],
            )
        tagged = DatasetInput(
            dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", "training")]
        )
        self.client.log_inputs(self.run_id, [tagged])

    def end(self, state: str, reason: str | None = None) -> None:
        """Closes the run with the status that belongs to an Optuna state."""
        self.tags({"trial_state": state} | ({"reason": reason} if reason else {}))
        self.client.set_terminated(self.run_id, STATUS[state])


def metric_key(name: str) -> str:
    """`name` with every character that MLflow refuses in a metric's name made a hyphen."""
    return re.sub(r"[^\w\-. :/]", "-", name)


def quoted(text: str) -> str:
    """`text` as MLflow's filters take it; they know two kinds of quotes, and no escape.

    Raises:
      UserError: the text has both kinds.
    """
    if "'" in text and '"' in text:
        raise UserError(f"The name {text!r} has both kinds of quotes; leave one of them out.")
    return f'"{text}"' if "'" in text else f"'{text}'"


def study_run(store: Store, experiment_id: str, name: str, tags: Mapping[str, str]) -> Run:
    """The run of a study, made when it is not there yet; its trials' runs are its children."""
    client = store.client()
    found = client.search_runs(
        [experiment_id],
        f"tags.study_name = {quoted(name)} AND tags.kind = 'study'",
        order_by=["attributes.start_time ASC"],
        max_results=1,
    )
    if found:
        return Run(client, found[0].info.run_id)
    own = {"study_name": name, "kind": "study"}
    run = client.create_run(experiment_id, run_name=name, tags=own | source_tags() | dict(tags))
    return Run(client, run.info.run_id)


def trial_run(parent: Run, name: str, number: int, tags: Mapping[str, str]) -> Run:
    """A new run for a trial, RUNNING, under its study's run."""
    study = parent.client.get_run(parent.run_id)
    own = {
        MLFLOW_PARENT_RUN_ID: parent.run_id,
        "kind": "trial",
        "study_name": study.data.tags["study_name"],
        "trial_number": str(number),
        "trial_state": "RUNNING",
    }
    run = parent.client.create_run(
        study.info.experiment_id, run_name=name, tags=own | source_tags() | dict(tags)
    )
    return Run(parent.client, run.info.run_id)


def source_tags() -> dict[str, str]:
    """Which code made a run: commit, whether files differed from it, and who ran it."""
    tags = {MLFLOW_SOURCE_NAME: "nutclf", MLFLOW_USER: _user()}
    here = Path(__file__).parent
    commit = _git("rev-parse", "HEAD", cwd=here)
    if commit is None:
        return tags | {"git_dirty": "unknown"}
    changed = _git("status", "--porcelain", "--untracked-files=no", cwd=here)
    return tags | {MLFLOW_GIT_COMMIT: commit, "git_dirty": str(bool(changed)).lower()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number and no name
        return str(os.getuid())


def _git(*arguments: str, cwd: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=cwd, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def write_json(path: Path, value: object) -> None:
    """A small file that a person can read too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
