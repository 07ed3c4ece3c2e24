"""The doctor on whole stores: everything at once, twice, and under a living sweep."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import optuna
import pytest
from mlflow.tracking._tracking_service import client as tracking

from nutclf.errors import UserError
from nutclf.search.doctor import examine
from nutclf.track.models import load_model
from nutclf.track.repairs import revision
from nutclf.track.runs import study_run, trial_run
from nutclf.track.store import Store, lock_study
from nutclf.train.feature_store import FeatureStore

TAGS = {"data_fingerprint": "aa", "data_source": "photographs"}
OLD_OPTUNA = "v3.0.0.d"
LEFT = (
    "running: study 'left': 1 trials and 3 runs say RUNNING, and no sweep is at work on it; the "
    "same `make sweep` settles that."
)


class Visit:
    """One visit of the doctor: what it counted and said."""

    def __init__(self, store, feature_folder, fix=False):
        tracking.utils._artifact_repos_cache.clear()  # as in the process of its own that it has
        self.lines = []
        self.tally = examine(store, feature_folder, fix, self.lines.append)
        self.kinds = [line.partition(":")[0] for line in self.lines if not line.startswith(" ")]

    @property
    def counts(self):
        return self.tally.found, self.tally.repaired, self.tally.left


@pytest.fixture
def feature_folder(tmp_path):
    return tmp_path / "features"


def contents(folder):
    """Everything in a folder, databases row by row; their logs and the locks come and go."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".db":
            with closing(sqlite3.connect(file)) as database:
                found[file.relative_to(folder)] = list(database.iterdump())
        elif file.is_file() and not file.name.endswith((".lock", "-wal", "-shm")):
            found[file.relative_to(folder)] = file.read_bytes()
    return found


def older_optuna(store):
    """All that the step from Optuna 3.0 to the present schema adds is an index."""
    with closing(sqlite3.connect(store.folder / "optuna.db")) as database, database:
        database.execute("DROP INDEX IF EXISTS trials_study_id_key")
        database.execute("UPDATE alembic_version SET version_num = ?", (OLD_OPTUNA,))


def left_running(store):
    """A study, its trial and the runs of both and of a probe as a killed sweep leaves them."""
    study = optuna.create_study(storage=store.optuna_url, study_name="left")
    parent = study_run(store, store.experiment_id("nutclf"), "left", TAGS)
    trial_run(parent, "probe", None, TAGS, "probe")
    study.ask({"rate": optuna.distributions.FloatDistribution(0, 1)})
    return parent, trial_run(parent, "t000", 0, TAGS)


@pytest.fixture
def ill(with_champion, copy_store, tmp_path, feature_folder):
    """A store with one of everything that can be repaired, moved to another folder."""
    store = copy_store(with_champion.folder, tmp_path / "store")
    for run in store.client().search_runs(
        [store.experiment_id("nutclf")], "attributes.status = 'RUNNING'"
    ):
        store.client().set_terminated(run.info.run_id)
    store.client().set_registered_model_alias("nutclf", "challenger", "1")
    (store.folder / "artifacts/nutclf" / ("0" * 32)).mkdir()
    FeatureStore(feature_folder, 10**9).get({}, (9,), "float32", lambda out: out.fill(1))
    next(feature_folder.glob("*.npy")).write_bytes(b"damaged")
    with closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        database.execute("UPDATE registered_model_aliases SET version = 7 WHERE alias='challenger'")
    older_optuna(store)
    shutil.move(store.folder, tmp_path / "moved")
    return Store.at(tmp_path / "moved", {})


def test_everything_is_repaired_at_once_and_a_second_time_nothing_changes(ill, feature_folder):
    first = Visit(ill, feature_folder, fix=True)
    found = [kind for kind in first.kinds if not kind.startswith("copied")]
    assert found == ["schema", "moved", "alias", "orphan", "features"]
    assert first.counts == (5, 5, 0)
    healthy = contents(ill.folder), contents(feature_folder)
    second = Visit(ill, feature_folder, fix=True)
    assert (second.counts, second.lines) == ((0, 0, 0), [])
    assert (contents(ill.folder), contents(feature_folder)) == healthy
    assert load_model(ill, "models:/nutclf@champion").output_shape == (None, 3)


def test_without_fix_nothing_changes_and_what_rests_on_a_repair_waits(ill, feature_folder):
    before = contents(ill.folder), contents(feature_folder)
    visit = Visit(ill, feature_folder)
    assert (contents(ill.folder), contents(feature_folder)) == before
    assert visit.kinds[0] == "schema"
    assert "can be judged once this is repaired" in visit.lines[1]
    assert visit.kinds[-1] == "features"
    assert visit.counts == (2, 0, 2)
    assert visit.tally.repairable == 2


def test_the_copies_hold_what_was_there_before(ill, feature_folder):
    before = contents(ill.folder)
    Visit(ill, feature_folder, fix=True)
    (folder,) = (ill.folder / "backups").iterdir()
    copies = contents(folder)
    assert copies[Path("mlflow.db")] == before[Path("mlflow.db")]
    assert copies[Path("optuna.db")] == before[Path("optuna.db")]


def test_a_repair_that_cannot_be_made_is_said_and_counted(ill, feature_folder):
    (ill.folder / "backups").write_text("in the way of the copies")
    before = contents(ill.folder)
    visit = Visit(ill, feature_folder, fix=True)
    assert any(line.startswith("  not repaired: ") for line in visit.lines)
    assert visit.counts == (2, 1, 1), "the features are repaired, the databases are not"
    assert contents(ill.folder) == before


def test_an_older_optuna_is_upgraded_with_all_it_holds(store, feature_folder):
    left_running(store)
    older_optuna(store)
    visit = Visit(store, feature_folder, fix=True)
    assert OLD_OPTUNA in visit.lines[0]
    assert revision(store.folder / "optuna.db") != OLD_OPTUNA
    assert len(optuna.load_study(study_name="left", storage=store.optuna_url).trials) == 1
    assert revision(next((store.folder / "backups").rglob("optuna.db"))) == OLD_OPTUNA


def test_a_newer_optuna_is_left_alone(store, feature_folder):
    with closing(sqlite3.connect(store.folder / "optuna.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    visit = Visit(store, feature_folder, fix=True)
    assert "newer Optuna" in visit.lines[0]
    assert visit.counts == (1, 0, 1)


def test_a_sweep_that_was_killed_is_named_and_one_that_lives_is_not_touched(store, feature_folder):
    parent, run = left_running(store)
    seen = Visit(store, feature_folder, fix=True)
    assert (seen.lines, seen.counts) == ([LEFT], (1, 0, 1))
    trial_run(parent, "others", 7, TAGS, kind="rung")  # no sweep would end it
    with lock_study(store, "other"):
        assert Visit(store, feature_folder).lines == [LEFT]
    with lock_study(store, "left"):
        assert Visit(store, feature_folder).lines == []
        older_optuna(store)
        under_way = Visit(store, feature_folder, fix=True)
    assert "an older one; end the sweep of " in under_way.lines[0]
    assert under_way.counts == (1, 0, 1)
    assert revision(store.folder / "optuna.db") == OLD_OPTUNA
    assert store.client().get_run(run.run_id).info.status == "RUNNING"


def test_a_store_that_is_not_there_is_said_and_not_made(tmp_path, feature_folder):
    with pytest.raises(UserError, match=r"no store .*nowhere.*STORE="):
        Visit(Store.at(tmp_path / "nowhere", {}), feature_folder)
    assert not (tmp_path / "nowhere").exists()


def test_in_an_empty_folder_nothing_is_made(tmp_path, feature_folder):
    (tmp_path / "empty").mkdir()
    assert Visit(Store.at(tmp_path / "empty", {}), feature_folder, fix=True).lines == []
    assert list((tmp_path / "empty").iterdir()) == []
    assert not feature_folder.exists()


@pytest.mark.parametrize("name", ["mlflow.db", "optuna.db"])
def test_a_file_that_is_no_database_ends_in_a_sentence(tmp_path, feature_folder, name):
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(9999))
    with pytest.raises(UserError, match=r"cannot be read.*put back a copy"):
        Visit(Store.at(tmp_path, {}), feature_folder)


@pytest.mark.slow
def test_at_a_server_files_and_schema_are_its_own(store, feature_folder, free_port, ui_at):
    port = free_port()
    left_running(store)
    (store.folder / "artifacts/nutclf" / ("0" * 32)).mkdir(parents=True)
    with ui_at(store, port):
        remote = Store.at(store.folder, {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"})
        visit = Visit(remote, feature_folder, fix=True)
    assert "is a server: its schema, addresses and files stay" in visit.lines[0]
    assert visit.lines[1:] == [LEFT]
    assert (store.folder / "artifacts/nutclf" / ("0" * 32)).exists()
