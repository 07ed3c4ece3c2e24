"""Where records are kept: one folder with MLflow's database, Optuna's, and the artifacts."""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from nutclf.errors import UserError

DEFAULT_FOLDER = "mlruns"
# MLflow's own settings ask an absent server for minutes, once for every record.
_IMPATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@dataclass(frozen=True)
class Store:
    """Addresses of the records; making one touches nothing.

    Attributes:
      folder: of everything local; also of the locks.
      tracking_uri: MLflow's, tracking and registry alike.
      optuna_url: of Optuna's storage.
      artifact_root: folder of a local store's artifacts; None leaves it to a tracking server.
    """

    folder: Path
    tracking_uri: str
    optuna_url: str
    artifact_root: Path | None

    @classmethod
    def at(cls, folder: str | Path, environ: Mapping[str, str]) -> "Store":
        """The store in `folder`, unless the environment names servers of its own.

        Raises:
          UserError: MLFLOW_TRACKING_URI names a file store, which MLflow no longer writes.
        """
        root = Path(folder).expanduser().resolve()
        explicit = environ.get("MLFLOW_TRACKING_URI", "")
        if explicit and "://" not in explicit.replace("file:", "://"):
            explicit = f"file:{explicit}"
        if explicit.startswith("file:"):
            raise UserError(
                f"MLFLOW_TRACKING_URI is {explicit!r}, a file store, which MLflow 3.13 and later "
                "refuse; unset it to use the database in STORE, or name a server or a sqlite file."
            )
        return cls(
            folder=root,
            tracking_uri=explicit or f"sqlite:///{root / 'mlflow.db'}",
            optuna_url=environ.get("NUTCLF_OPTUNA_STORAGE") or f"sqlite:///{root / 'optuna.db'}",
            # Beside a database alone MLflow would put artifacts into the current folder.
            artifact_root=None if explicit.startswith("http") else root / "artifacts",
        )

    def prepare(self) -> "Store":
        """Makes the folder and MLflow's tables, and points MLflow's global settings here.

        Several processes may call it at once.

        Raises:
          UserError: the folder cannot be written.
        """
        self.use()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "store.lock"):
                # Two processes that create the same new database kill each other: one at a time.
                self.client().search_experiments(max_results=1)
                self._let_readers_read()
        except MlflowException as error:
            reason = str(error).splitlines()[0][:200]
            raise UserError(
                f"MLflow at {self.tracking_uri} does not answer as it should ({reason}); start "
                "it, or unset MLFLOW_TRACKING_URI to use the database in STORE."
            ) from error
        except (OSError, NotImplementedError, SQLAlchemyError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"The store {str(self.folder)!r} cannot be written ({reason}); "
                "name a folder that can be with STORE=."
            ) from error
        return self

    def _let_readers_read(self) -> None:
        """Write-ahead logging: several workers and the UI do not lock each other out."""
        self._pragma("journal_mode=WAL")

    def checkpoint(self) -> None:
        """Moves what write-ahead logging holds back into the database file: a copy is whole."""
        self._pragma("wal_checkpoint(TRUNCATE)")

    def _pragma(self, statement: str) -> None:
        """For SQLite; a server's database is its keeper's."""
        if self.tracking_uri.startswith("sqlite:///"):
            with closing(sqlite3.connect(self.tracking_uri.removeprefix("sqlite:///"))) as database:
                database.execute(f"PRAGMA {statement}")

    def client(self) -> MlflowClient:
        """A client of this store, whatever MLflow's global settings say."""
        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    def use(self) -> None:
        """Points MLflow's global settings here: a few of its functions read nothing else."""
        os.environ["MLFLOW_TRACKING_URI"] = self.tracking_uri
        for name, value in _IMPATIENCE.items():
            os.environ.setdefault(name, value)
        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_registry_uri(self.tracking_uri)

    def experiment_id(self, name: str) -> str:
        """The id of the experiment called `name`, made when missing, its artifacts in the store."""
        client = self.client()
        with FileLock(self.folder / "store.lock"):
            found = client.get_experiment_by_name(name)
            if found is not None:
                return found.experiment_id
            location = (self.artifact_root / name).as_uri() if self.artifact_root else None
            # Tells the UI to show training runs first, not traces of language models.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return client.create_experiment(name, artifact_location=location, tags=tags)


EXPERIMENTS = {"photographs": "nutclf", "drawn": "nutclf-drawn"}


def make_whole(database: Path, make) -> None:
    """STOPGAP."""
    if not database.exists():
        make(f"sqlite:///{database}")


from contextlib import contextmanager


@contextmanager
def lock_study(store, name):
    """STOPGAP."""
    with FileLock(store.folder / f"{name}.lock", timeout=0):
        yield
