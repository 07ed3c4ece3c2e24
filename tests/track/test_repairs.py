"""What the doctor mends of MLflow's: old and half-made tables, moves, lost files, lost records."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow.store.db_migrations
import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from mlflow.store.tracking.dbmodels.initial_models import Base
from mlflow.tracking._tracking_service import client as tracking

from nutclf.track.evaluation import stored_predictions
from nutclf.track.models import load_metadata, load_model
from nutclf.track.registry import CHAMPION, Registry
from nutclf.track.repairs import (
    back_up,
    find_dangling_aliases,
    find_moved,
    find_old_schema,
    find_orphans,
    revision,
)
from nutclf.track.runs import Run
from nutclf.track.store import Store

OLD = "400f98739977"  # the schema of MLflow 3.0
LOST_RUN, LOST_MODEL = "0" * 32, "m-" + "1" * 32


@pytest.fixture(autouse=True)
def fresh_cache():
    """MLflow remembers addresses by run, in one process; the doctor has one of its own."""
    tracking.utils._artifact_repos_cache.clear()


def mended(find, store):
    """Repairs what is found, and finds nothing afterwards: (what was wrong, what was done)."""
    done = [(finding.what, finding.repair()) for finding in find(store)]
    tracking.utils._artifact_repos_cache.clear()
    assert find(store) == []
    return done


def execute(store, *statements):
    with closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        for statement in statements:
            database.execute(statement)


# Backups.


def test_a_copy_has_what_was_committed_and_is_made_before_the_first_change_only(tmp_path):
    """With write-ahead logging the newest rows are in another file; a plain copy lacks them."""
    said, file = [], tmp_path / "records.db"
    with closing(sqlite3.connect(file)) as open_elsewhere:
        open_elsewhere.execute("PRAGMA journal_mode=WAL")
        open_elsewhere.execute("CREATE TABLE notes (text TEXT)")
        open_elsewhere.execute("INSERT INTO notes VALUES ('new')")
        open_elsewhere.commit()
        assert b"CREATE TABLE notes" not in file.read_bytes(), "the file itself has not"
        back_up(f"sqlite:///{file}", tmp_path / "backups", said.append)
        open_elsewhere.execute("DELETE FROM notes")
        open_elsewhere.commit()
        back_up(f"sqlite:///{file}", tmp_path / "backups", said.append)
    (copy,) = (tmp_path / "backups").rglob("*.db")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT * FROM notes").fetchall() == [("new",)]
    (line,) = said
    assert str(copy) in line


# Tables of an older MLflow, and tables whose making was killed.


def migrated_to(folder, version, *statements):
    """A store whose tables MLflow has brought to a version."""
    folder.mkdir()
    address = f"sqlite:///{folder / 'mlflow.db'}"
    engine = sqlalchemy.create_engine(address)
    Base.metadata.create_all(engine)
    config = Config()
    config.set_main_option("script_location", str(Path(mlflow.store.db_migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        if version:
            command.upgrade(config, version)
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()
    return Store.at(folder, {})


def test_a_store_of_this_version_is_healthy(store, tmp_path):
    assert mended(find_old_schema, store) == []
    assert mended(find_old_schema, Store.at(tmp_path / "nowhere", {})) == []


def test_an_older_store_is_upgraded_with_all_it_holds(tmp_path):
    insert = (
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) "
        "VALUES (7, 'nutclf', 'file:///artifacts/nutclf', 'active')"
    )
    old = migrated_to(tmp_path / "store", OLD, insert)
    database = old.folder / "mlflow.db"
    ((what, did),) = mended(find_old_schema, old)
    assert OLD in what
    assert revision(database) in did
    assert old.prepare().client().get_experiment_by_name("nutclf").experiment_id == "7"


def test_an_upgrade_that_fails_changes_nothing(tmp_path):
    insert = (
        "INSERT INTO experiments (experiment_id, name, lifecycle_stage) "
        "VALUES (7, 'nutclf', 'active')"
    )
    half = migrated_to(
        tmp_path / "store", "0a8213491aaa", "CREATE TABLE datasets (key TEXT)", insert
    )
    (finding,) = find_old_schema(half)
    before = (half.folder / "mlflow.db").read_bytes()
    with pytest.raises(sqlalchemy.exc.OperationalError, match="datasets already exists"):
        finding.repair()
    assert (half.folder / "mlflow.db").read_bytes() == before
    assert not (half.folder / "mlflow.db.new").exists()


def test_a_store_of_a_newer_version_is_left_alone(store):
    execute(store, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    (finding,) = find_old_schema(store)
    assert "newer MLflow" in finding.what
    assert finding.repair is None


# A store that was moved or copied.


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


def test_the_champion_of_a_moved_store_opens(with_champion, copy_store, tmp_path, monkeypatch):
    """The new place has a blank and a letter that addresses write as %C3%BC."""
    monkeypatch.chdir(tmp_path)
    original = copy_store(with_champion.folder, tmp_path / "store")
    assert mended(find_moved, original) == []
    old = original.folder.as_uri()
    columns = begins_with(original.folder / "mlflow.db", old)
    assert columns == {
        "experiments.artifact_location",
        "runs.artifact_uri",
        "logged_models.artifact_location",
        "model_versions.storage_location",
    }
    store = moved(original, tmp_path / "Büro 2" / "records")
    ((what, _),) = mended(find_moved, store)
    assert str(original.folder / "artifacts") in what
    assert begins_with(store.folder / "mlflow.db", old) == set()
    assert begins_with(store.folder / "mlflow.db", store.folder.as_uri()) == columns
    champion = Registry(store.client(), "nutclf").at(CHAMPION)
    address = "models:/nutclf@champion"
    assert load_model(store, address).output_shape == (None, 3)
    assert load_metadata(store, address)["classes"] == ["almonds", "pecans", "walnuts"]
    assert len(stored_predictions(Run(store.client(), champion.run_id), "valid")) == 12
    assert not original.folder.exists(), "MLflow makes the old place again where it writes there"


def test_a_copy_leads_to_its_own_files_and_the_original_stays_as_it_was(filled, tmp_path):
    (run_id,) = runs(filled)
    shutil.copytree(filled.folder, tmp_path / "copy")
    copy = Store.at(tmp_path / "copy", {})
    assert len(mended(find_moved, copy)) == 1
    assert read_note(copy, run_id) == read_note(filled, run_id) == "before"
    assert mended(find_moved, filled) == []


def test_files_that_were_written_to_the_old_place_since_the_move_are_copied(filled, tmp_path):
    """As long as nobody repairs it, MLflow makes the old folder again, and writes there."""
    (first,) = runs(filled)
    store = moved(filled, tmp_path / "new")
    second = write_note(store, "to the old place")
    assert len(list(filled.folder.rglob("note.txt"))) == 1
    mended(find_moved, store)
    assert read_note(store, first) == "before"
    assert read_note(store, second) == "to the old place"
    assert read_note(store, write_note(store, "after")) == "after"
    assert len(list(filled.folder.rglob("note.txt"))) == 1, "copied, not moved"


def test_a_database_without_its_artifacts_is_not_touched(filled, tmp_path):
    (tmp_path / "new").mkdir()
    for file in filled.folder.glob("mlflow.db*"):  # with its write-ahead log
        shutil.copy(file, tmp_path / "new")
    store = Store.at(tmp_path / "new", {})
    (finding,) = find_moved(store)
    assert finding.repair is None
    assert "put that folder beside the database" in finding.what


def test_a_store_behind_a_link_was_not_moved(filled, tmp_path):
    store = moved(filled, tmp_path / "disk" / "store")
    filled.folder.symlink_to(store.folder)
    assert mended(find_moved, store) == []


def test_only_addresses_below_the_old_place_are_changed(filled, tmp_path):
    """Not those of others, not a traceback, and not a folder whose name only begins alike."""
    (run_id,) = runs(filled)
    elsewhere = (tmp_path / "elsewhere").as_uri()
    filled.client().create_experiment("other", artifact_location=elsewhere)
    tags = {
        "reason": f"OSError: no such file {filled.folder}/artifacts/nutclf/x",
        "alike": f"{filled.folder}/artifacts2/x",
    }
    for key, value in tags.items():
        filled.client().set_tag(run_id, key, value)
    store = moved(filled, tmp_path / "new")
    assert len(mended(find_moved, store)) == 1
    assert store.client().get_experiment_by_name("other").artifact_location == elsewhere
    assert tags.items() <= store.client().get_run(run_id).data.tags.items()


# Aliases and folders.


def test_the_alias_of_a_deleted_version_goes(kept):
    """MLflow takes the alias along; a row that is deleted in the database does not."""
    assert mended(find_dangling_aliases, kept) == []
    execute(kept, "PRAGMA foreign_keys=ON", *(
        f"DELETE FROM {table}" for table in ("model_version_tags", "model_versions")
    ))  # fmt: skip
    ((what, did),) = mended(find_dangling_aliases, kept)
    assert what == "nutclf@champion points at version 1, which was deleted"
    assert "`make promote`" in did
    assert kept.client().get_registered_model("nutclf").aliases == {}


@pytest.mark.parametrize(
    ("gone", "reason"),
    [("", "whose files are gone"), ("data/model.keras", "whose network is gone")],
)
def test_the_alias_of_a_model_without_its_files_goes(kept, model, gone, reason):
    shutil.move(model / gone, kept.folder / "aside")
    ((what, _),) = mended(find_dangling_aliases, kept)
    assert what == f"nutclf@champion points at version 1, {reason}"
    assert Registry(kept.client(), "nutclf").at(CHAMPION) is None


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


def test_what_is_recorded_is_no_orphan(store, with_champion):
    run_id = write_note(store, "in the bin, from where it may come back")
    store.client().delete_run(run_id)
    assert found(store) == []
    assert list(with_champion.folder.glob("artifacts/nutclf/models/m-*"))
    assert found(with_champion) == []


def test_a_run_whose_record_is_gone_is_reported_with_its_size(store):
    run_id = write_note(store, "n" * 3_000_000)
    execute(store, f"DELETE FROM runs WHERE run_uuid = '{run_id}'")
    (what,) = found(store)
    assert f"artifacts/nutclf/{run_id} (3.0 MB)" in what


def test_runs_and_models_that_nothing_names_are_moved_whole_and_nothing_else(store, lost):
    run_id = write_note(store, "recorded")
    findings = find_orphans(store)
    assert len(findings) == 2
    for finding in findings:
        finding.repair()
    files = store.folder.glob("orphans/*/**/*.txt")
    assert {"/".join(file.relative_to(store.folder).parts[2:]) for file in files} == {
        f"nutclf/{LOST_RUN}/artifacts/file.txt",
        f"nutclf/models/{LOST_MODEL}/artifacts/file.txt",
    }
    assert {path.name for path in lost.iterdir()} == {"notes", "models", run_id}
    assert [path.name for path in (lost / "models").iterdir()] == ["mine"]
    assert found(store) == []


def test_a_database_elsewhere_does_not_know_what_lies_in_the_folder(store, lost, tmp_path):
    for file in store.folder.glob("mlflow.db*"):
        file.rename(tmp_path / file.name)
    elsewhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    assert found(Store.at(store.folder, elsewhere)) == []
