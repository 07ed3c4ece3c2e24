"""What kills, moves and deletions leave wrong in MLflow's records and files, and how to mend it."""

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlparse

import mlflow.db
import mlflow.store.db_migrations
from alembic.script import ScriptDirectory
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path

from nutclf.track.store import Store, made_aside, sqlite_file

_BUSY_S = 60.0
_ID = "[0-9a-f]" * 32  # a run's, as `Path.glob` takes it


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
      kind, what: a word for it, and the thing in words, without a full stop.
      repair: mends it, and returns what it did, likewise; None where a person has to.
      changes: address of the database that the repair changes: it is to be copied before.
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


def revision(database: Path) -> str | None:
    """Which schema a database says it has, read without MLflow and Optuna, which may change it."""
    with closing(sqlite3.connect(database)) as connection:
        if "alembic_version" not in _tables(connection):
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return row[0] if row else None


def _tables(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {row[0] for row in rows.fetchall()}


def find_old_schema(store: Store) -> list[Finding]:
    """Whether MLflow's tables are those of another version, or were left half made."""
    database = filled_database(store.tracking_uri)
    if database is None:
        return []
    with closing(sqlite3.connect(database)) as connection:
        tables = _tables(connection)
        empty = "experiments" in tables and not _has_records(connection, tables)
    half_made = any(table.startswith("_alembic_tmp_") for table in tables)
    migrations = ScriptDirectory(str(Path(mlflow.store.db_migrations.__file__).parent))
    known = {None, *(script.revision for script in migrations.walk_revisions())}
    found = revision(database)
    if "experiments" not in tables or (found == migrations.get_current_head() and not half_made):
        return []
    if empty and found in known:
        # Migrations that were killed do not go on: "table already exists", "duplicate column".
        what = "MLflow's tables are old or half made, and without a record"
        return [Finding("schema", what, partial(_make_anew, store), store.tracking_uri)]
    repair = partial(_upgrade, store) if found in known else None
    return [schema_finding("MLflow", found, repair, store.tracking_uri)]


def schema_finding(
    library: str, found: str | None, upgrade: Callable[[], str] | None, url: str
) -> Finding:
    """What to say of a database whose schema is not that of the installed library."""
    of = "an older one" if upgrade else f"of a newer {library} than requirements.txt names"
    return Finding("schema", f"{library}'s database has the schema {found}, {of}", upgrade, url)


def _has_records(connection: sqlite3.Connection, tables: set[str]) -> bool:
    queries = ["SELECT 1 FROM experiments WHERE name != 'Default'"]  # which MLflow makes itself
    queries += [f"SELECT 1 FROM {t}" for t in ("runs", "registered_models") if t in tables]
    return any(connection.execute(query).fetchone() for query in queries)


def _make_anew(store: Store) -> str:
    with store.lock(), made_aside(sqlite_file(store.tracking_uri)) as url:
        store.make_tables(url)
    return "MLflow's tables are made anew"


def _upgrade(store: Store) -> str:
    database = sqlite_file(store.tracking_uri)
    with store.lock(), made_aside(database) as url:  # ended half-way, it has changed nothing
        _copy_database(database, sqlite_file(url))
        mlflow.db.upgrade.callback(url)  # what `mlflow db upgrade` runs
    return f"MLflow's database has the schema {revision(database)} now"


def find_moved(store: Store) -> list[Finding]:
    """Old places of this store that the absolute addresses in its records still lead to."""
    found, here = [], store.artifact_root
    for root, prefixes in sorted(_old_roots(store).items()):
        what = f"addresses in its records lead to {root}, and the store is in {store.folder}"
        repair = partial(_bring_home, store, root, prefixes)
        if root.exists() and not here.exists():
            what, repair = f"{what}; put that folder beside the database, too", None
        found.append(Finding("moved", what, repair, store.tracking_uri))
    return found


def _old_roots(store: Store) -> dict[Path, set[str]]:
    """Folders of artifacts elsewhere, laid out as ours, <store>/artifacts/<experiment>.

    Each with the ways in which addresses below it begin, a slash at their end.
    """
    found: dict[Path, set[str]] = {}
    if (database := filled_database(store.tracking_uri)) is None:
        return found
    with closing(sqlite3.connect(database, timeout=_BUSY_S)) as connection:
        rows = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
    for name, location in rows:
        folder = _local_folder(location)
        if folder is None or folder.name != name or folder.parent.name != store.artifact_root.name:
            continue
        # A link left at the old place leads here: nothing is wrong.
        if folder.parent.resolve() != store.artifact_root:
            starts = {location.rpartition("/")[0], folder.parent.as_uri(), str(folder.parent)}
            found.setdefault(folder.parent, set()).update(f"{start}/" for start in starts)
    return found


def _local_folder(uri: str | None) -> Path | None:
    """The folder that an artifact address means; None when it is on no disk of this machine."""
    if not uri or urlparse(uri).scheme not in ("", "file"):
        return None
    return Path(local_file_uri_to_path(uri))


def _bring_home(store: Store, root: Path, prefixes: set[str]) -> str:
    database, here = filled_database(store.tracking_uri), store.artifact_root
    with closing(sqlite3.connect(database, timeout=_BUSY_S)) as connection:
        brought = _copy_missing(connection, root, here)
        with connection:  # one transaction
            count = sum(_rewrite(connection, prefix, here) for prefix in prefixes)
    left_there = f"; {brought} folders that were only there are copied" if brought else ""
    return f"{count} addresses lead to {here} now{left_there}"


def _copy_missing(connection: sqlite3.Connection, root: Path, here: Path) -> int:
    """Copies what records name and only the old place has, as runs after a move leave it."""
    rows = connection.execute(
        "SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM logged_models"
    )
    folders = {folder for (uri,) in rows.fetchall() if (folder := _local_folder(uri))}
    below = [folder for folder in folders if folder.is_relative_to(root) and folder.is_dir()]
    targets = {folder: here / folder.relative_to(root) for folder in below}
    missing = {folder: target for folder, target in targets.items() if not target.exists()}
    for folder, target in missing.items():
        shutil.copytree(folder, target)
    return len(missing)


def _rewrite(connection: sqlite3.Connection, prefix: str, here: Path) -> int:
    """Changes every value that begins with the old place, in whatever column it is.

    A value that names it further in, such as a traceback, is history and stays.
    """
    now, total = f"{here.as_uri() if prefix.startswith('file:') else here}/", 0
    for table in _tables(connection):
        for _, column, kind, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
            if kind.upper().startswith(("VARCHAR", "TEXT")):
                total += connection.execute(
                    f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) '
                    f'WHERE substr("{column}", 1, ?) = ?',
                    (now, len(prefix) + 1, len(prefix), prefix),
                ).rowcount
    return total


def find_dangling_aliases(store: Store) -> list[Finding]:
    """Aliases that lead to no model that can be opened: a version or its files are gone."""
    client = store.client()
    return [
        Finding(
            "alias",
            f"{model.name}@{alias} points at version {version}, {reason}",
            partial(_remove_alias, client, model.name, alias),
            store.tracking_uri,
        )
        for model in client.search_registered_models(max_results=1000)
        for alias, version in model.aliases.items()
        if (reason := _why_nowhere(client, model.name, version))
    ]


def _why_nowhere(client: MlflowClient, name: str, version: str) -> str | None:
    try:
        folder = _local_folder(client.get_model_version_download_uri(name, version))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return "which was deleted"
        raise
    if folder is None:  # on a server, which looks after its own
        return None
    description = folder / "MLmodel"
    if not description.is_file():
        return "whose files are gone"
    of_keras = "keras_version:" in description.read_text(encoding="utf-8")
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
    database = filled_database(store.tracking_uri)
    if database is None or database.resolve() != store.folder / "mlflow.db":
        return []
    # Folders first: a run is recorded before its folder is made.
    root = store.artifact_root
    folders = sorted([*root.glob(f"*/{_ID}"), *root.glob(f"*/models/m-{_ID}")])
    with closing(sqlite3.connect(database)) as connection:
        known = connection.execute(
            "SELECT run_uuid FROM runs UNION SELECT model_id FROM logged_models"
        ).fetchall()
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
