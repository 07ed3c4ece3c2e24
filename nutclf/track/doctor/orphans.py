"""Folders of runs and models that no record names, as a deleted database row leaves them."""

import functools
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from nutclf.track.doctor.databases import sqlite_file
from nutclf.track.doctor.finding import Finding
from nutclf.track.store import Store

_RUN, _MODEL = re.compile(r"[0-9a-f]{32}"), re.compile(r"m-[0-9a-f]{32}")


def find_orphans(store: Store) -> list[Finding]:
    """Folders in `artifacts/` of runs and models without a record; other things there are let be.

    Only where the database lies beside them: another one does not know what all of them are.
    """
    database = sqlite_file(store.tracking_uri)
    if database is None or database.resolve() != store.folder / "mlflow.db":
        return []
    # In this order: a run is recorded before its folder is made.
    folders = sorted(_folders(store.artifact_root))
    known = _recorded(database)
    return [
        Finding(
            "orphan",
            f"{folder.relative_to(store.folder)} ({_megabytes(folder):.1f} MB) is in no record",
            functools.partial(_move, store, folder),
        )
        for folder in folders
        if folder.name not in known
    ]


def _folders(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        return
    for experiment in filter(Path.is_dir, root.iterdir()):
        for parent, name in ((experiment, _RUN), (experiment / "models", _MODEL)):
            if parent.is_dir():
                yield from (path for path in parent.iterdir() if name.fullmatch(path.name))


def _recorded(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT run_uuid FROM runs UNION SELECT model_id FROM logged_models"
        )
        return {row[0] for row in rows}


def _megabytes(folder: Path) -> float:
    return sum(file.lstat().st_size for file in folder.rglob("*")) / 1e6


def _move(store: Store, folder: Path) -> str:
    """Moved, not deleted: a record may come back with a copy of the database."""
    day = store.folder / "orphans" / time.strftime("%Y-%m-%d_%H%M%S")
    target = day / folder.relative_to(store.artifact_root)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, target)
    return f"moved to {target.relative_to(store.folder)}; delete it there when it is not missed"
