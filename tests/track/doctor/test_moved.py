"""A store that was moved or copied opens at its new place, and loses nothing on the way."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import client as tracking

from nutclf.track.doctor.databases import Backups
from nutclf.track.doctor.moved import find_moved
from nutclf.track.evaluation import stored_predictions
from nutclf.track.liveness import hold
from nutclf.track.models import load_metadata, load_model
from nutclf.track.registry import CHAMPION, Registry
from nutclf.track.runs import Run
from nutclf.track.store import Store


@pytest.fixture(autouse=True)
def fresh_cache():
    """MLflow remembers addresses by run, in one process; the doctor has one of its own."""
    tracking.utils._artifact_repos_cache.clear()


@pytest.fixture
def filled(store):
    """A store whose only run has a file."""
    write_note(store, "before")
    return store


def write_note(store, text):
    client = store.client()
    run = Run(client, client.create_run(store.experiment_id("nutclf")).info.run_id)
    with run.artifacts() as folder:
        (folder / "note.txt").write_text(text)
    return run.run_id


def read_note(store, run_id):
    """What MLflow gives of a run's file, asked of the store at its place."""
    tracking.utils._artifact_repos_cache.clear()
    client = store.client()
    assert client.get_run(run_id).info.artifact_uri.startswith(store.artifact_root.as_uri())
    return Path(client.download_artifacts(run_id, "note.txt")).read_text()


def runs(store):
    return [r.info.run_id for r in store.client().search_runs([store.experiment_id("nutclf")])]


def moved(store, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(store.folder, to)
    return Store.at(to, {})


def repaired(store):
    """Repairs, and says what was found."""
    found = find_moved(store, Backups(store.folder, print))
    for finding in found:
        finding.repair()
    tracking.utils._artifact_repos_cache.clear()
    return [finding.what for finding in found]


def begins_with(database, text):
    """Columns that have a value beginning so."""
    found = set()
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
        for (table,) in tables:
            for _, column, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
                query = f'SELECT 1 FROM {table} WHERE "{column}" LIKE ? LIMIT 1'
                if connection.execute(query, (f"{text}%",)).fetchone():
                    found.add(f"{table}.{column}")
    return found


def test_a_store_at_its_place_is_healthy(filled, with_champion):
    assert repaired(filled) == repaired(with_champion) == []


def test_the_champion_of_a_moved_store_opens(with_champion, copy_store, tmp_path, monkeypatch):
    """The new place has a blank and a letter that addresses write as %C3%BC."""
    monkeypatch.chdir(tmp_path)
    original = copy_store(with_champion.folder, tmp_path / "store")
    old = original.folder.as_uri()
    columns = begins_with(original.folder / "mlflow.db", old)
    assert columns == {
        "experiments.artifact_location",
        "runs.artifact_uri",
        "logged_models.artifact_location",
        "model_versions.storage_location",
    }
    store = moved(original, tmp_path / "Büro 2" / "records")
    (what,) = repaired(store)
    assert str(original.folder / "artifacts") in what
    assert begins_with(store.folder / "mlflow.db", old) == set()
    assert begins_with(store.folder / "mlflow.db", store.folder.as_uri()) == columns
    champion = Registry(store.client(), "nutclf").at(CHAMPION)
    address = "models:/nutclf@champion"
    assert load_model(store, address).output_shape == (None, 3)
    assert load_metadata(store, address)["classes"] == ["almonds", "pecans", "walnuts"]
    assert len(stored_predictions(Run(store.client(), champion.run_id), "valid")) == 12
    assert not original.folder.exists(), "MLflow makes the old place again where it writes there"


def test_what_is_logged_after_the_repair_goes_to_the_new_place(filled, tmp_path):
    store = moved(filled, tmp_path / "new")
    repaired(store)
    write_note(store, "after")
    assert len(list(store.folder.rglob("note.txt"))) == 2
    assert not filled.folder.exists()


def test_a_second_time_there_is_nothing(filled, tmp_path):
    store = moved(filled, tmp_path / "new")
    assert len(repaired(store)) == 1
    assert repaired(store) == []
    assert len(list((store.folder / "backups").iterdir())) == 1


def test_a_copy_leads_to_its_own_files_and_the_original_stays_as_it_was(filled, tmp_path):
    (run_id,) = runs(filled)
    shutil.copytree(filled.folder, tmp_path / "copy")
    copy = Store.at(tmp_path / "copy", {})
    assert len(repaired(copy)) == 1
    assert read_note(copy, run_id) == read_note(filled, run_id) == "before"
    assert repaired(filled) == []


def test_files_that_were_written_to_the_old_place_since_the_move_are_brought(filled, tmp_path):
    """As long as nobody repairs it, MLflow makes the old folder again, and writes there."""
    (first,) = runs(filled)
    store = moved(filled, tmp_path / "new")
    second = write_note(store, "to the old place")
    assert len(list(filled.folder.rglob("note.txt"))) == 1
    repaired(store)
    assert read_note(store, first) == "before"
    assert read_note(store, second) == "to the old place"
    assert len(list(filled.folder.rglob("note.txt"))) == 1, "copied, not moved"


def test_a_database_without_its_artifacts_is_not_touched(filled, tmp_path):
    (tmp_path / "new").mkdir()
    for file in filled.folder.glob("mlflow.db*"):  # with its write-ahead log
        shutil.copy(file, tmp_path / "new")
    store = Store.at(tmp_path / "new", {})
    (finding,) = find_moved(store, Backups(store.folder, print))
    assert finding.repair is None
    assert "put that folder beside the database" in finding.what


def test_a_store_behind_a_link_was_not_moved(filled, tmp_path):
    store = moved(filled, tmp_path / "disk" / "store")
    filled.folder.symlink_to(store.folder)
    assert repaired(store) == []


def test_the_addresses_of_others_stay(filled, tmp_path):
    elsewhere = (tmp_path / "elsewhere").as_uri()
    filled.client().create_experiment("other", artifact_location=elsewhere)
    store = moved(filled, tmp_path / "new")
    assert len(repaired(store)) == 1
    assert store.client().get_experiment_by_name("other").artifact_location == elsewhere
    assert repaired(store) == []


def test_history_that_names_the_old_place_stays(filled, tmp_path):
    (run_id,) = runs(filled)
    reason = f"OSError: no such file {filled.folder}/artifacts/nutclf/x"
    filled.client().set_tag(run_id, "reason", reason)
    store = moved(filled, tmp_path / "new")
    repaired(store)
    assert store.client().get_run(run_id).data.tags["reason"] == reason


def test_a_folder_whose_name_only_begins_alike_is_another(filled, tmp_path):
    (run_id,) = runs(filled)
    other = f"{filled.folder}/artifacts2/x"
    filled.client().set_tag(run_id, "other", other)
    store = moved(filled, tmp_path / "new")
    repaired(store)
    assert store.client().get_run(run_id).data.tags["other"] == other


def test_before_the_change_the_database_is_copied(filled, tmp_path):
    store = moved(filled, tmp_path / "new")
    repaired(store)
    (copy,) = (store.folder / "backups").rglob("mlflow.db")
    assert begins_with(copy, filled.folder.as_uri())


def test_under_a_sweep_nothing_is_changed(filled, tmp_path):
    store = moved(filled, tmp_path / "new")
    with hold(store.folder):
        (finding,) = find_moved(store, Backups(store.folder, print))
    assert finding.repair is None
    assert "end the sweep" in finding.what
