"""Where records are kept: one folder with MLflow's database, Optuna's, artifacts and locks."""

import getpass
import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlparse

import mlflow
from filelock import FileLock, Timeout
from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy.exc import SQLAlchemyError

from nutclf.errors import UserError
from nutclf.track import postgres

BUSY_S = 60.0  # SQLite lets one process write at a time: so long the others wait
_SERVER_S = 5  # MLflow itself asks a server that is away for four minutes
_SQLITE = "sqlite:///"
_SERVERS = (_SQLITE, "http://", "https://")
_HOST = re.compile(r"[\w.-]+:\d+(/|$)")
_CLASSES, _TAG_LENGTH = "classes", 4000  # tag of an experiment, characters


@dataclass(frozen=True)
class Store:
    """Addresses of the records; making one touches nothing.

    `folder` has everything local, the locks too. `artifact_root` is None where a server has them.
    """

    folder: Path
    tracking_uri: str
    optuna_url: str
    artifact_root: Path | None

    @classmethod
    def at(cls, folder: str | Path, environ: Mapping[str, str]) -> "Store":
        """The store in `folder`, unless the environment names servers of its own.

        Raises `UserError` when they name what cannot be used.
        """
        root = Path(folder).expanduser().resolve()
        if "?" in str(root):  # ends a file's name in the address of a SQLite database
            raise UserError(
                f"The store {str(root)!r} has a question mark in its path, which the databases' "
                "addresses cannot hold; name another folder with STORE=."
            )
        explicit = environ.get("MLFLOW_TRACKING_URI", "")
        if explicit and not explicit.startswith(_SERVERS):
            hint = f"; if it is a server: http://{explicit}" if _HOST.match(explicit) else ""
            raise UserError(
                f"MLFLOW_TRACKING_URI is {explicit!r}; allowed: the address of an MLflow server "
                f"(http://host:5000) or of a SQLite file (sqlite:////folder/mlflow.db){hint}. "
                "Unset it to use the database in STORE; a database on a server belongs behind "
                "`mlflow server --backend-store-uri`."
            )
        trials = environ.get("NUTCLF_OPTUNA_STORAGE", "")
        if trials and not trials.startswith((_SQLITE, "postgresql://", "postgresql+psycopg://")):
            raise UserError(
                f"NUTCLF_OPTUNA_STORAGE is {trials!r}; allowed: sqlite:////folder/optuna.db, or "
                "postgresql+psycopg://user:password@host/database. Unset it to use the database in "
                "STORE."
            )
        # Without a driver in its address SQLAlchemy takes one that is not installed.
        trials = re.sub("^postgresql:", "postgresql+psycopg:", trials)
        return cls(
            folder=root,
            tracking_uri=explicit or f"{_SQLITE}{root / 'mlflow.db'}",
            optuna_url=trials or f"{_SQLITE}{root / 'optuna.db'}",
            # Beside a database alone MLflow would put artifacts into the current folder.
            artifact_root=None if explicit.startswith("http") else root / "artifacts",
        )

    def prepare(self) -> "Store":
        """Makes folder and tables, and points MLflow here; several processes may call it at once.

        Raises `UserError` when the folder cannot be written, its tables are not those of this
        MLflow, or a server does not answer within 5 s, or not as it should.
        """
        self.use()
        if postgres.is_postgres(self.optuna_url):
            postgres.connect(self.optuna_url).close()
        way_out = (
            "start it, with this host's name in --allowed-hosts if it says 403, or unset "
            "MLFLOW_TRACKING_URI to use the database in STORE"
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.lock():
                if database := sqlite_file(self.tracking_uri):
                    way_out = (
                        "see with `make doctor` whether FIX=1 mends it, or name another STORE="
                    )
                    root = self.artifact_root.as_uri()
                    make_whole(database, lambda url: SqlAlchemyStore(url, root).engine.dispose())
                elif self.tracking_uri.startswith("http"):
                    server = get_default_host_creds(self.tracking_uri)
                    http_request(server, "/health", "GET", max_retries=0, timeout=_SERVER_S)
                first = self.client().search_experiments(max_results=1)
                self._check_artifacts(first)
                # Write-ahead logging: the sweep and the UI do not lock each other out.
                self._pragma("journal_mode=WAL")
        except MlflowException as error:
            reason = str(error).splitlines()[0][:200]
            raise UserError(
                f"MLflow at {self.tracking_uri} does not answer as it should ({reason}); {way_out}."
            ) from error
        except (OSError, NotImplementedError, SQLAlchemyError, sqlite3.Error) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"The store {str(self.folder)!r} cannot be written ({reason}); name a folder that "
                "can be with STORE=, or see with `make doctor` whether FIX=1 mends this one."
            ) from error
        return self

    def _check_artifacts(self, experiments: Sequence[Experiment]) -> None:
        """Raises `UserError` where a server keeps artifacts in a folder that is not here."""
        for location in (urlparse(experiment.artifact_location) for experiment in experiments):
            is_folder = self.tracking_uri.startswith("http") and location.scheme in ("", "file")
            if is_folder and not os.access(Path(location.path).parent, os.W_OK):
                raise UserError(
                    f"The MLflow server at {self.tracking_uri} keeps artifacts in its own folder "
                    f"{location.path}, which cannot be written from here; start it with "
                    "--artifacts-destination instead of --default-artifact-root."
                )

    def checkpoint(self) -> None:
        """Moves what write-ahead logging holds back into the database file: a copy is whole."""
        self._pragma("wal_checkpoint(TRUNCATE)")

    def _pragma(self, statement: str) -> None:
        if database := sqlite_file(self.tracking_uri):
            with closing(sqlite3.connect(database)) as connection:
                connection.execute(f"PRAGMA {statement}")

    def client(self) -> MlflowClient:
        """A client of this store, whatever MLflow's global settings say."""
        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    def use(self) -> None:
        """Points MLflow's global settings here: a few of its functions read nothing else."""
        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_registry_uri(self.tracking_uri)

    def experiment_id(self, name: str, classes: Sequence[str] = ()) -> str:
        """The id of the experiment called `name`, made when missing, its artifacts in the store.

        Raises `UserError` where it holds records of other classes than these, if any are given.
        """
        client, said = self.client(), json.dumps(classes, ensure_ascii=False)[:_TAG_LENGTH]
        with self.lock():
            if found := client.get_experiment_by_name(name):
                if found.lifecycle_stage != LifecycleStage.ACTIVE:
                    raise UserError(
                        f"The experiment {name!r} was deleted in MLflow; restore it, and its runs,"
                        " with `make doctor FIX=1`, or take another name with MODEL=."
                    )
                held = found.tags.get(_CLASSES, said)
                if classes and held != said:
                    raise UserError(
                        f"The records called {name!r} are of other images, with the classes "
                        f"{held[:200]}; give these another name with MODEL=, or another STORE=."
                    )
                if classes and _CLASSES not in found.tags:
                    client.set_experiment_tag(found.experiment_id, _CLASSES, said)
                return found.experiment_id
            location = (self.artifact_root / name).as_uri() if self.artifact_root else None
            # Tells the UI to show training runs first, not traces of language models.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            tags |= {_CLASSES: said} if classes else {}
            return client.create_experiment(name, artifact_location=location, tags=tags)

    def lock(self) -> FileLock:
        """For a moment: whoever makes a database, an experiment or a study waits for the others."""
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "locks" / "store.lock")


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for a server."""
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None


def make_whole(database: Path, make: Callable[[str], None]) -> None:
    """Makes a SQLite database unless it is there; killed on the way, it leaves none.

    To be called under the store's lock. `make` fills the database at an address, and closes it.
    What version 0.1 left half made, without a run or a study, is made anew.
    """
    there = _tables(database) if database.exists() else []
    if there and revision(database) and not any(t.startswith("_alembic_tmp_") for t in there):
        return
    for table in {"runs", "studies"} & set(there):
        if query(database, f"SELECT 1 FROM {table} LIMIT 1"):
            return
    with made_aside(database) as url:
        make(url)


def query(database: Path, statement: str) -> list[tuple]:
    """The rows that a SQLite database answers."""
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
        return connection.execute(statement).fetchall()


def _tables(database: Path) -> list[str]:
    return [name for (name,) in query(database, "SELECT name FROM sqlite_master ORDER BY name")]


def revision(database: Path) -> str | None:
    """Which schema a database says it has, read without MLflow and Optuna, which may change it."""
    if "alembic_version" not in _tables(database):
        return None
    rows = query(database, "SELECT version_num FROM alembic_version")
    return rows[0][0] if rows else None


@contextmanager
def made_aside(database: Path) -> Iterator[str]:
    """The address of a new database, which takes the place of `database` at the block's end."""
    folder = database.with_name(f"{database.name}.new")
    shutil.rmtree(folder, ignore_errors=True)  # a killed process left it
    folder.mkdir(parents=True)
    try:
        yield f"{_SQLITE}{folder / database.name}"
        for ending in ("-wal", "-shm", "-journal"):  # SQLite would take them for the new one's
            database.with_name(database.name + ending).unlink(missing_ok=True)
        os.replace(folder / database.name, database)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lock_study(store: Store, study_name: str) -> AbstractContextManager[Callable[[], bool]]:
    """Only one driver sweeps a study; entering raises `UserError` while another does.

    Gives a function to be asked before each write: whether the lock was lost, and taken again. A
    file's cannot be; see `AdvisoryLock.was_lost`.
    """
    return _hold(
        store,
        "study",
        study_name,
        f"Study {study_name!r} is being swept by",
        "wait for it, stop it, or give that sweep more workers with WORKERS=.",
    )


def lock_tables(store: Store) -> AbstractContextManager[Callable[[], bool]]:
    """For the moment in which Optuna makes its tables: of two first drivers the other one waits."""
    what = "Optuna's tables are being made by"
    return _hold(store, "tables", "optuna", what, "give the same command again.", BUSY_S)


def lock_model(
    store: Store, name: str, patience_s: float = 120.0
) -> AbstractContextManager[Callable[[], bool]]:
    """Only one promotion at a time decides on a model; entering raises `UserError` in the end."""
    return _hold(
        store,
        "model",
        name,
        f"A promotion to model {name!r} is under way by",
        "when it has ended, give `make promote` with the same STUDY and DATA.",
        patience_s,
    )


def study_lock(store: Store, study_name: str) -> Path:
    """The lock file of a study, where Optuna's records are no server's."""
    return _lock_file(store, "study", study_name)


def _lock_file(store: Store, kind: str, name: str) -> Path:
    # A study's lock lies beside Optuna's database, a model's beside MLflow's.
    url = store.optuna_url if kind == "study" else store.tracking_uri
    folder = (database.parent if (database := sqlite_file(url)) else store.folder) / "locks"
    # Names may be long, or differ only in what a file name cannot show.
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return folder / f"{kind}-{quote(name, safe='')[:80]}-{digest}.lock"


@contextmanager
def _hold(
    store: Store, kind: str, name: str, what: str, way_out: str, patience_s: float = 0.5
) -> Iterator[Callable[[], bool]]:
    """Holds a lock, which ends with its process, also after SIGKILL.

    It waits even for a driver: others may only look at the lock, or be about to sign as its holder.
    """
    if postgres.is_postgres(store.optuna_url):
        shared = _advisory(store, kind, name)
        try:
            if not shared.acquire(patience_s):
                raise UserError(f"{what} {shared.holder() or 'another session'}; {way_out}")
            yield shared.was_lost
        finally:
            shared.release()
        return
    lock_file = _lock_file(store, kind, name)
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock, signature = FileLock(lock_file), lock_file.with_suffix(".txt")
    try:
        lock.acquire(timeout=patience_s)
    except Timeout as error:
        raise UserError(f"{what} {_signed(lock_file)}; {way_out}") from error
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        me = f"{user_name()}@{socket.gethostname()} (pid {os.getpid()}) since {since}"
        signature.write_text(me, encoding="utf-8")
        yield lambda: False
    finally:
        signature.unlink(missing_ok=True)
        lock.release()


def _advisory(store: Store, kind: str, name: str) -> postgres.AdvisoryLock:
    return postgres.AdvisoryLock(store.optuna_url, f"{kind} {name!r}", user_name())


def who_sweeps(store: Store, study_name: str) -> str:
    """Who is at work on a study now, as `holder` says; "" for nobody."""
    if postgres.is_postgres(store.optuna_url):
        return _advisory(store, "study", study_name).holder()
    return holder(study_lock(store, study_name))


def holder(lock_file: Path) -> str:
    """Who holds a lock now, "user@host (pid 1) since 2026-01-31 12:00:00"; "" for nobody."""
    if not lock_file.exists():  # to try a lock makes its file
        return ""
    with suppress(Timeout), FileLock(lock_file, timeout=0):
        return ""
    return _signed(lock_file)


def _signed(lock_file: Path) -> str:
    with suppress(OSError):
        return lock_file.with_suffix(".txt").read_text(encoding="utf-8") or "another process"
    return "another process"


def swept_studies(store: Store) -> list[str]:
    """Who sweeps a study of the store now."""
    if postgres.is_postgres(store.optuna_url):
        return postgres.holders(store.optuna_url)
    files = sorted(study_lock(store, "").parent.glob("study-*.lock"))
    return [who for file in files if (who := holder(file))]


def user_name() -> str:
    """Of the person who runs this; a container's user may have a number and no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
