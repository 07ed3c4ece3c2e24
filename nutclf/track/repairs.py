"""What kills, moves and deletions leave wrong in MLflow's records and files, and how to mend it."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlparse

import mlflow.db
import mlflow.store.db_migrations
from alembic.script import ScriptDirectory
from mlflow.entities import LifecycleStage, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path

from nutclf.track.registry import CHAMPION, Registry
from nutclf.track.store import BUSY_S, Store, made_aside, query, revision, sqlite_file

Upgrade = Callable[[str], None]
_ID = "[0-9a-f]" * 32  # a run's, as `Path.glob` takes it
_FILES = {"runs": "artifact_uri", "logged_models": "artifact_location"}
_ADDRESSES = {"experiments": "artifact_location", "model_versions": "storage_location"} | _FILES
"""Tables and columns in which MLflow keeps absolute addresses."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, in a word and in words without a full stop.

    `repair` mends it, and returns what it did, likewise; None where a person has to. `changes` is
    the address of the database that it changes, which is to be copied before.
    """

    kind: str
    what: str
    repair: Callable[[], str] | None = None
    changes: str = ""


def back_up(url: str, folder: Path, say: Callable[[str], None]) -> None:
    """Copies the SQLite file at an address, once; a server's is for whoever runs it to copy."""
    database = filled_database(url)
    if database and not (copy := folder / database.name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        _copy_database(database, copy)
        say(f"copied {database.name} to {copy} before changing it")


def _copy_database(database: Path, to: Path) -> None:
    """Copies in SQLite's own way: a plain copy of a database that is in use is torn."""
    with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(to)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode=DELETE")  # one file, whatever is opened beside it


def filled_database(url: str) -> Path | None:
    """The file of a SQLite database; None for a server, and where nothing was written yet."""
    file = sqlite_file(url)
    return file if file and file.is_file() and file.stat().st_size else None


def find_old_schema(store: Store) -> list[Finding]:
    """Whether MLflow's tables are those of another version."""
    migrations = ScriptDirectory(str(Path(mlflow.store.db_migrations.__file__).parent))
    head, known = migrations.get_current_head(), [s.revision for s in migrations.walk_revisions()]
    upgrade = mlflow.db.upgrade.callback  # what `mlflow db upgrade` runs
    return compare_schema(store, "MLflow", store.tracking_uri, head, known, upgrade)


def compare_schema(
    store: Store, library: str, url: str, head: str, known: list[str], upgrade: Upgrade
) -> list[Finding]:
    """Whether a database has another schema than `head`; the installed library can read `known`."""
    database = filled_database(url)
    found = revision(database) if database else None
    if found in (None, head):
        return []
    what = f"{library}'s database has the schema {found}"
    if found not in known:
        return [Finding("schema", f"{what} of a newer {library} than requirements.txt names")]
    repair = partial(_upgrade, store, library, database, upgrade)
    return [Finding("schema", f"{what}, an older one", repair, url)]


def _upgrade(store: Store, library: str, database: Path, upgrade: Upgrade) -> str:
    with store.lock(), made_aside(database) as url:  # ended half-way, it has changed nothing
        _copy_database(database, sqlite_file(url))
        upgrade(url)
    return f"{library}'s database has the schema {revision(database)} now"


def find_moved(store: Store) -> list[Finding]:
    """Old places of this store that the absolute addresses in its records still lead to."""
    if (database := filled_database(store.tracking_uri)) is None:
        return []
    here, old = store.artifact_root, {}
    for name, uri in query(database, "SELECT name, artifact_location FROM experiments"):
        folder = _local_folder(uri)
        # Laid out as ours, <store>/artifacts/<experiment>; a link left at the old place leads here.
        ours = folder and (folder.parent.name, folder.name) == (here.name, name)
        if ours and folder.parent.resolve() != here:
            old[uri.rpartition("/")[0]] = folder.parent
    found = []
    for start, root in sorted(old.items()):
        what = f"addresses in its records lead to {root}, and the store is in {store.folder}"
        repair = partial(_bring_home, database, start, root, here)
        if root.exists() and not here.exists():
            what, repair = f"{what}; put that folder beside the database, too", None
        found.append(Finding("moved", what, repair, store.tracking_uri))
    return found


def _local_folder(uri: str | None) -> Path | None:
    """The folder that an artifact address means; None when it is on no disk of this machine."""
    local = uri and urlparse(uri).scheme in ("", "file")
    return Path(local_file_uri_to_path(uri)) if local else None


def _bring_home(database: Path, start: str, root: Path, here: Path) -> str:
    """Rewrites addresses; files that only the old place has, of runs since, are copied first."""
    missing = {}
    for table, column in _FILES.items():
        for (uri,) in query(database, f"SELECT {column} FROM {table}"):
            if uri and uri.startswith(f"{start}/") and (folder := _local_folder(uri)).is_dir():
                missing[folder] = here / folder.relative_to(root)
    missing = {folder: target for folder, target in missing.items() if not target.exists()}
    for folder, target in missing.items():
        shutil.copytree(folder, target)
    count, length = 0, len(start)
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection, connection:
        for table, column in _ADDRESSES.items():  # in one transaction
            count += connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE substr({column}, 1, ?) = ?",
                (here.as_uri(), length + 1, length + 1, f"{start}/"),
            ).rowcount
    left_there = f"; {len(missing)} folders that were only there are copied" if missing else ""
    return f"{count} addresses lead to {here} now{left_there}"


def find_deleted_experiments(store: Store) -> list[Finding]:
    """Experiments that were deleted in MLflow, and their runs with them."""
    client, found = store.client(), []
    for experiment in client.search_experiments(ViewType.DELETED_ONLY, max_results=1000):
        what = f"experiment {experiment.name!r} was deleted in MLflow, with its runs"
        repair = partial(_restore_experiment, client, experiment.experiment_id)
        found.append(Finding("lost", what, repair, store.tracking_uri))
    return found


def _restore_experiment(client: MlflowClient, experiment_id: str) -> str:
    client.restore_experiment(experiment_id)
    return "it is restored"


def restore_runs(store: Store, run_ids: Sequence[str]) -> str:
    """Takes deleted runs back."""
    for run_id in run_ids:
        store.client().restore_run(run_id)
    return f"{len(run_ids)} restored"


def recorded_studies(store: Store) -> list[tuple[str, str, bool]]:
    """Each study that MLflow has a run of, deleted ones too: its experiment's id, its name, and
    whether the experiment was deleted."""
    client, found = store.client(), set()
    for experiment in client.search_experiments(ViewType.ALL, max_results=1000):
        where, is_deleted = (
            experiment.experiment_id,
            experiment.lifecycle_stage == LifecycleStage.DELETED,
        )
        runs = client.search_runs([where], "tags.study_name != ''", ViewType.ALL, 10_000)
        found |= {(where, run.data.tags["study_name"], is_deleted) for run in runs}
    return sorted(found)


def find_dangling_aliases(store: Store) -> list[Finding]:
    """Aliases that lead to no model that can be opened: a version or its files are gone."""
    client, found = store.client(), []
    for model in client.search_registered_models(max_results=1000):
        for alias, version in model.aliases.items():
            if reason := _why_nowhere(client, model.name, version):
                what = f"{model.name}@{alias} points at version {version}, {reason}"
                repair = partial(_remove_alias, client, model.name, alias)
                found.append(Finding("alias", what, repair, store.tracking_uri))
    return found


def find_no_champion(store: Store) -> list[Finding]:
    """Experiments whose trials came to results, and no version of the model is champion."""
    client, found = store.client(), []
    results = "tags.kind = 'trial' AND attributes.status = 'FINISHED'"
    for experiment in client.search_experiments(max_results=1000):
        ended = client.search_runs([experiment.experiment_id], results, max_results=1)
        if ended and Registry(client, experiment.name).at(CHAMPION) is None:
            what = f"{experiment.name!r} has trained models and no champion"
            way = "`make promote` with the STUDY and DATA of a sweep chooses one"
            found.append(Finding("alias", f"{what}; {way}"))
    return found


def _why_nowhere(client: MlflowClient, name: str, version: str) -> str | None:
    try:
        folder = _local_folder(client.get_model_version_download_uri(name, version))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return "which was deleted"
        raise
    if folder is None:  # on a server, which looks after its own
        return None
    if not (folder / "MLmodel").is_file():
        return "whose files are gone"
    of_keras = "keras_version:" in (folder / "MLmodel").read_text(encoding="utf-8")
    gone = of_keras and not (folder / "data" / "model.keras").is_file()
    return "whose network is gone" if gone else None


def _remove_alias(client: MlflowClient, name: str, alias: str) -> str:
    client.delete_registered_model_alias(name, alias)
    return (
        f"{name}@{alias} is removed; `make promote` with the STUDY and DATA of a sweep chooses "
        "anew; a study whose best model has lost its files needs a sweep under another NAME"
    )


def find_orphans(store: Store) -> list[Finding]:
    """Folders of runs and models in `artifacts/` without a record; other things stay.

    Only where the database lies beside them: another one does not know what all of them are.
    """
    database, root = filled_database(store.tracking_uri), store.artifact_root
    if database is None or database.resolve() != store.folder / "mlflow.db":
        return []
    # Folders first: a run is recorded before its folder is made.
    folders = sorted([*root.glob(f"*/{_ID}"), *root.glob(f"*/models/m-{_ID}")])
    known = query(database, "SELECT run_uuid FROM runs UNION SELECT model_id FROM logged_models")
    found = []
    for folder in folders:
        if (folder.name,) not in known:
            megabytes = sum(file.lstat().st_size for file in folder.rglob("*")) / 1e6
            what = f"{folder.relative_to(store.folder)} ({megabytes:.1f} MB) is in no record"
            found.append(Finding("orphan", what, partial(_move_out, store, folder)))
    return found


def _move_out(store: Store, folder: Path) -> str:
    """Moved, not deleted: a record may come back with a copy of the database."""
    day = store.folder / "orphans" / time.strftime("%Y-%m-%d_%H%M%S")
    target = day / folder.relative_to(store.artifact_root)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, target)
    return f"moved to {target.relative_to(store.folder)}; delete it there when it is not missed"
