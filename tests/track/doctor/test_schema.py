"""A store from an older MLflow is brought up to date, with a copy of what it was."""

import sqlite3
from contextlib import closing

import pytest
import sqlalchemy
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base

from nutclf.track.doctor.databases import Backups, revision
from nutclf.track.doctor.schema import find_old_schema
from nutclf.track.liveness import hold
from nutclf.track.store import Store

OLD = "400f98739977"  # the schema of MLflow 3.0


@pytest.fixture
def old(tmp_path):
    """A store as MLflow 3.0 made it, with an experiment."""
    folder = tmp_path / "store"
    folder.mkdir()
    address = f"sqlite:///{folder / 'mlflow.db'}"
    engine = sqlalchemy.create_engine(address)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(address)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OLD)
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) "
                f"VALUES (7, 'nutclf', '{(folder / 'artifacts/nutclf').as_uri()}', 'active')"
            )
        )
    engine.dispose()
    return Store.at(folder, {})


def find(store):
    return find_old_schema(store, Backups(store.folder, print))


def test_a_store_of_this_version_is_healthy(store, tmp_path):
    assert find(store) == []
    assert find(Store.at(tmp_path / "nowhere", {})) == []


def test_an_older_store_is_upgraded_with_all_it_holds(old):
    database = old.folder / "mlflow.db"
    (finding,) = find(old)
    assert OLD in finding.what
    assert revision(database) == OLD, "to look changes nothing"
    did = finding.repair()
    assert revision(database) in did
    assert find(old) == []
    (copy,) = (old.folder / "backups").rglob("mlflow.db")
    assert revision(copy) == OLD
    experiment = old.prepare().client().get_experiment_by_name("nutclf")
    assert experiment.experiment_id == "7"


def test_a_store_of_a_newer_version_is_left_alone(store):
    with closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    (finding,) = find(store)
    assert "newer MLflow" in finding.what
    assert finding.repair is None


def test_under_a_sweep_nothing_is_changed(old):
    with hold(old.folder):
        (finding,) = find(old)
    assert finding.repair is None
    assert "end that" in finding.what
