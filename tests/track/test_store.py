"""Where records go: one place, by explicit addresses, and never into the current folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from nutclf.errors import UserError
from nutclf.track.runs import Run
from nutclf.track.store import Store

# Imports once, then becomes three processes: to import mlflow takes seconds.
PREPARE_IN_THREE_PROCESSES = """
import os, sys
from nutclf.track.store import Store
store = Store.at(sys.argv[1], {})
children = []
for _ in range(3):
    children.append(os.fork())
    if not children[-1]:
        print(store.prepare().experiment_id("nutclf"))
        sys.exit()
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@pytest.mark.parametrize(
    "address", ["./mlruns", "mlruns", "/data/mlruns", "file:./mlruns", "file:///data/mlruns"]
)
def test_a_file_store_is_refused(tmp_path, address):
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI is .*mlruns.*unset it"):
        Store.at(tmp_path, {"MLFLOW_TRACKING_URI": address})


def test_making_a_store_touches_nothing(tmp_path):
    Store.at(tmp_path / "store", {})
    assert not (tmp_path / "store").exists()


def test_an_explicit_database_wins(store, tmp_path, monkeypatch):
    """The folder then keeps the artifacts only: MLflow's own default is the current folder."""
    monkeypatch.chdir(tmp_path)
    database = tmp_path / "elsewhere.db"
    (store.folder / "mlflow.db").rename(database)
    named = Store.at(store.folder, {"MLFLOW_TRACKING_URI": f"sqlite:///{database}"}).prepare()
    client = MlflowClient(f"sqlite:///{database}")
    run = client.create_run(named.experiment_id("nutclf"))
    with Run(client, run.info.run_id).artifacts() as folder:
        (folder / "note.txt").write_text("here")
    assert not (store.folder / "mlflow.db").exists()
    assert len(list(store.folder.rglob("note.txt"))) == 1
    assert {name for name in os.listdir() if not name.startswith("elsewhere.db")} == {"store"}


def test_an_explicit_optuna_storage_wins(tmp_path):
    address = "sqlite:////elsewhere/optuna.db"
    assert Store.at(tmp_path, {"NUTCLF_OPTUNA_STORAGE": address}).optuna_url == address
    assert Store.at(tmp_path, {}).optuna_url == f"sqlite:///{tmp_path.resolve()}/optuna.db"


def test_an_empty_setting_counts_as_none(tmp_path):
    unset = {"MLFLOW_TRACKING_URI": "", "NUTCLF_OPTUNA_STORAGE": ""}
    assert Store.at(tmp_path, unset) == Store.at(tmp_path, {})


def test_a_store_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written.*STORE="):
        Store.at(tmp_path / "file" / "store", {}).prepare()


def test_a_store_whose_database_is_none_is_refused(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database, but a note that is long enough" * 100)
    with pytest.raises(UserError, match="cannot be written"):
        Store.at(tmp_path, {}).prepare()


def test_remains_of_an_old_file_store_do_not_matter(store):
    """MLflow by itself takes `mlruns/0/meta.yaml` as a sign to use the file store, and raises."""
    (store.folder / "0").mkdir()
    (store.folder / "0" / "meta.yaml").write_text("experiment_id: '0'\n")
    assert store.prepare().client().get_experiment(store.experiment_id("nutclf"))


def test_the_artifacts_of_an_experiment_lie_in_the_store(store):
    experiment = store.client().get_experiment(store.experiment_id("nutclf"))
    assert experiment.artifact_location == (store.folder / "artifacts" / "nutclf").as_uri()
    assert store.experiment_id("nutclf") == experiment.experiment_id


def test_three_processes_make_the_same_new_store(tmp_path):
    """Without the lock two of three die: each creates the tables that another is creating."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE_IN_THREE_PROCESSES, str(tmp_path / "store")],
        check=False,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    *experiments, codes = done.stdout.splitlines()
    assert codes == "[0, 0, 0]", done.stderr
    assert len(experiments) == 3
    assert len(set(experiments)) == 1
