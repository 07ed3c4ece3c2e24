"""A store that was moved or copied: MLflow's addresses are absolute and lead to the old place."""

import functools
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from mlflow.utils.file_utils import local_file_uri_to_path

from nutclf.track.doctor.databases import Backups, sqlite_file
from nutclf.track.doctor.finding import Finding
from nutclf.track.liveness import workers
from nutclf.track.store import Store

_BUSY_S = 60.0


@dataclass(frozen=True)
class _Root:
    """A folder of artifacts as records name it.

    Attributes:
      folder: where it was.
      prefixes: the ways in which addresses below it begin, each with a slash at its end.
    """

    folder: Path
    prefixes: frozenset[str]


def find_moved(store: Store, backups: Backups) -> list[Finding]:
    """Old places of this store that its records still lead to; servers keep their own addresses."""
    database = sqlite_file(store.tracking_uri)
    if database is None:
        return []
    with closing(sqlite3.connect(database, timeout=_BUSY_S)) as connection:
        roots = _old_roots(connection, store.artifact_root)
        counts = [_count(connection, root) for root in roots]
    return [_finding(store, backups, *pair) for pair in zip(roots, counts, strict=True)]


def local_folder(uri: str | None) -> Path | None:
    """The folder that an artifact address means; None when it is on no disk of this machine."""
    if not uri or urlparse(uri).scheme not in ("", "file"):
        return None
    return Path(local_file_uri_to_path(uri))


def _old_roots(connection: sqlite3.Connection, here: Path) -> list[_Root]:
    """Places of experiments laid out as ours are, <store>/artifacts/<name>, in another store."""
    found: dict[Path, set[str]] = {}
    rows = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
    for name, location in rows:
        folder = local_folder(location)
        if folder is None or folder.name != name or folder.parent.name != here.name:
            continue
        # A link left at the old place leads here: nothing is wrong.
        if folder.parent.resolve() != here:
            written = location.rpartition("/")[0]
            known = {written, folder.parent.as_uri(), str(folder.parent)}
            found.setdefault(folder.parent, set()).update(f"{start}/" for start in known)
    return [_Root(folder, frozenset(prefixes)) for folder, prefixes in sorted(found.items())]


def _finding(store: Store, backups: Backups, root: _Root, count: int) -> Finding:
    what = f"{count} addresses lead to {root.folder}, and the store is in {store.folder}"
    if root.folder.exists() and not store.artifact_root.exists():
        return Finding("moved", f"{what}; put that folder beside the database, too")
    if workers(store.folder):
        return Finding("moved", f"{what}; end the sweep that is at work on it first")
    return Finding("moved", what, functools.partial(_repair, store, backups, root))


def _repair(store: Store, backups: Backups, root: _Root) -> str:
    backups.before_changing(store.tracking_uri)
    database = sqlite_file(store.tracking_uri)
    with closing(sqlite3.connect(database, timeout=_BUSY_S)) as connection:
        brought = _bring(connection, root, store.artifact_root)
        with connection:  # one transaction
            count = _rewrite(connection, root, store.artifact_root)
    left_there = f"; {brought} folders that were only there are copied" if brought else ""
    return f"{count} addresses lead to {store.artifact_root} now{left_there}"


def _bring(connection: sqlite3.Connection, root: _Root, here: Path) -> int:
    """Copies what records name and only the old place has, as runs after a move leave it."""
    rows = connection.execute(
        "SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM logged_models"
    ).fetchall()
    brought = 0
    for (uri,) in rows:
        folder = local_folder(uri)
        if folder is None or not folder.is_relative_to(root.folder):
            continue
        target = here / folder.relative_to(root.folder)
        if folder.is_dir() and not target.exists():
            shutil.copytree(folder, target)
            brought += 1
    return brought


def _count(connection: sqlite3.Connection, root: _Root) -> int:
    total = 0
    for table, column in _text_columns(connection):
        for prefix in root.prefixes:
            query = f'SELECT count(*) FROM "{table}" WHERE substr("{column}", 1, ?) = ?'
            total += connection.execute(query, (len(prefix), prefix)).fetchone()[0]
    return total


def _rewrite(connection: sqlite3.Connection, root: _Root, here: Path) -> int:
    """Changes every value that begins with the old place, in whatever column it is.

    A value that names it further in, such as a traceback, is history and stays.
    """
    total = 0
    for table, column in _text_columns(connection):
        for prefix in root.prefixes:
            now = f"{here.as_uri() if prefix.startswith('file:') else here}/"
            total += connection.execute(
                f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) '
                f'WHERE substr("{column}", 1, ?) = ?',
                (now, len(prefix) + 1, len(prefix), prefix),
            ).rowcount
    return total


def _text_columns(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        for _, column, kind, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
            if kind.upper().startswith(("VARCHAR", "TEXT")):
                yield table, column
