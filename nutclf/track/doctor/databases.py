"""The store's SQLite files: found by address, copied before any change, and asked for their age."""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

_SQLITE = "sqlite:///"


def sqlite_file(url: str) -> Path | None:
    """The file of a local database; None for a server, and where nothing was written yet."""
    if not url.startswith(_SQLITE):
        return None
    file = Path(url.removeprefix(_SQLITE))
    return file if file.is_file() and file.stat().st_size else None


def revision(database: Path) -> str | None:
    """Which schema a database says it has; None where it has no tables yet.

    Read without MLflow and Optuna: to open an older database both may change it.
    """
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'")
        if tables.fetchone() is None:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return row[0] if row else None


class Backups:
    """Copies databases before they are changed, each once.

    Args:
      folder: of the store; copies go to `backups/<time>/` in it.
      say: gets a line a copy.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self._folder = folder / "backups" / f"{time.strftime('%Y-%m-%d_%H%M%S')}-{os.getpid()}"
        self._say, self._done = say, set()

    def before_changing(self, url: str) -> None:
        """Copies the database at an address; a server's is its keeper's to copy."""
        if url in self._done:
            return
        self._done.add(url)
        if (database := sqlite_file(url)) is None:
            self._say("no copy is made of a server's database; its keeper has those")
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        copy = self._folder / database.name
        # SQLite's own way: a plain copy of a database in use is torn.
        with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(copy)) as new:
            old.backup(new)
        self._say(f"copied {database.name} to {copy} before changing it")
