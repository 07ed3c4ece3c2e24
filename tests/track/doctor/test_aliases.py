"""An alias that leads to no model is found and removed, and promotion goes on from there."""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from nutclf.errors import UserError
from nutclf.track.doctor.aliases import find_dangling_aliases
from nutclf.track.doctor.databases import Backups
from nutclf.track.promotion import promote
from nutclf.track.registry import CHAMPION, Registry


@pytest.fixture
def again(kept, tiny_config, load_split, source):
    def again():
        config = replace(tiny_config, name="promoted")
        fingerprint = source.data.fingerprint
        return promote(kept, "nutclf", config.name, config.objective, load_split, fingerprint, dict)

    return again


def delete_version(store):
    """MLflow takes the alias along; a row that is deleted in the database does not."""
    with closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        database.execute("PRAGMA foreign_keys=ON")
        for table in ("model_version_tags", "model_versions"):
            database.execute(f"DELETE FROM {table}")


def repaired(store):
    found = find_dangling_aliases(store, Backups(store.folder, print))
    return [(finding.what, finding.repair()) for finding in found]


def test_a_champion_with_its_files_is_healthy(kept):
    assert repaired(kept) == []
    assert Registry(kept.client(), "nutclf").at(CHAMPION) is not None


def test_the_alias_of_a_deleted_version_goes_and_promotion_makes_a_champion(kept, again):
    delete_version(kept)
    ((what, did),) = repaired(kept)
    assert what == "nutclf@champion points at version 1, which was deleted"
    assert "`make promote`" in did
    assert kept.client().get_registered_model("nutclf").aliases == {}
    assert repaired(kept) == []
    assert list((kept.folder / "backups").rglob("mlflow.db"))
    assert again().is_champion
    assert repaired(kept) == []


@pytest.mark.parametrize(
    ("gone", "reason"),
    [("", "whose files are gone"), ("data/model.keras", "whose network is gone")],
)
def test_the_alias_of_a_model_without_its_files_goes(kept, model, again, gone, reason):
    shutil.move(model / gone, kept.folder / "aside")
    ((what, _),) = repaired(kept)
    assert what == f"nutclf@champion points at version 1, {reason}"
    assert Registry(kept.client(), "nutclf").at(CHAMPION) is None
    assert repaired(kept) == []
    with pytest.raises(UserError, match="files are not those that were saved"):
        again()  # in a sentence: the study's best is the model that has no files
