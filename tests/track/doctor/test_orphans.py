"""Folders that no record names are reported with their size, and moved out of the way."""

import sqlite3
from contextlib import closing

import pytest

from nutclf.track.doctor.orphans import find_orphans
from nutclf.track.runs import Run
from nutclf.track.store import Store

LOST_RUN, LOST_MODEL = "0" * 32, "m-" + "1" * 32


@pytest.fixture
def run(store):
    """A recorded run with a file of 3 MB."""
    client = store.client()
    run = Run(client, client.create_run(store.experiment_id("nutclf")).info.run_id)
    with run.artifacts() as folder:
        (folder / "large.bin").write_bytes(bytes(3_000_000))
    return run


@pytest.fixture
def lost(store):
    """Folders of a run and of a model that nothing names, and things that are neither."""
    root = store.folder / "artifacts" / "nutclf"
    for path in (LOST_RUN, f"models/{LOST_MODEL}", "notes", "models/mine"):
        (root / path / "artifacts").mkdir(parents=True)
        (root / path / "artifacts" / "file.txt").write_text(path)
    (store.folder / "artifacts" / "a-file").touch()
    return root


def found(store):
    return [finding.what for finding in find_orphans(store)]


def test_what_is_recorded_is_no_orphan(store, run):
    assert found(store) == []


def test_a_run_in_the_bin_is_recorded_and_may_come_back(store, run):
    run.client.delete_run(run.run_id)
    assert found(store) == []


def test_the_models_of_a_healthy_store_are_recorded(with_champion):
    assert list(with_champion.folder.glob("artifacts/nutclf/models/m-*"))
    assert found(with_champion) == []


def test_a_run_whose_record_is_gone_is_reported_with_its_size(store, run):
    with closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        database.execute("DELETE FROM runs WHERE run_uuid = ?", (run.run_id,))
    (what,) = found(store)
    assert f"artifacts/nutclf/{run.run_id} (3.0 MB)" in what


def test_runs_and_models_that_nothing_names_are_moved_whole_and_nothing_else(store, run, lost):
    findings = find_orphans(store)
    assert len(findings) == 2
    for finding in findings:
        finding.repair()
    moved = {
        file.relative_to(store.folder / "orphans") for file in store.folder.glob("orphans/**/*.txt")
    }
    assert {"/".join(path.parts[1:]) for path in moved} == {
        f"nutclf/{LOST_RUN}/artifacts/file.txt",
        f"nutclf/models/{LOST_MODEL}/artifacts/file.txt",
    }
    assert {path.name for path in lost.iterdir()} == {"notes", "models", run.run_id}
    assert [path.name for path in (lost / "models").iterdir()] == ["mine"]


def test_a_second_time_there_is_nothing(store, lost):
    for finding in find_orphans(store):
        finding.repair()
    assert found(store) == []


def test_a_database_elsewhere_does_not_know_what_lies_in_the_folder(store, lost, tmp_path):
    for file in store.folder.glob("mlflow.db*"):
        file.rename(tmp_path / file.name)
    elsewhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    assert found(Store.at(store.folder, elsewhere)) == []
