"""Records that MLflow's server could not take: kept on disk, in order, until it answers again.

Used for servers only; a local database is always there. A run that was begun while the server was
away has a pending name until then.
"""

import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests.exceptions import RequestException

_PAUSE_S = 20.0  # before an absent server is asked again
_PENDING = "pending-"
_REAL = "run_id.txt"
_RECORD, _FILES = "record.json", "files"

Deliver = Callable[[MlflowClient, str, dict, Path], str | None]
"""Writes one record: client, run id, arguments, folder of its files; gives a new run's id."""


def is_away(error: BaseException) -> bool:
    """Whether this error says that MLflow's server cannot be reached, not that it refused."""
    if isinstance(error, RequestException):
        return True
    text = str(error)
    return isinstance(error, MlflowException) and (
        any(f"failed with {how}" in text for how in ("exception", "timeout exception"))
        or any(f"error code {n}" in text for n in (502, 503, 504))
    )


class Outbox:
    """Holds back what an absent server misses.

    Args:
      folder: one folder a run, in it one a record, numbered.
      kinds: by name, how a record is written.
    """

    def __init__(self, folder: Path, kinds: Mapping[str, Deliver]):
        self.folder, self._kinds = folder, kinds
        self._away_since = -_PAUSE_S

    def begin(self, client: MlflowClient, arguments: dict) -> str:
        """Begins a run, by the kind "begin"; its id, a pending one while the server is away."""
        if not self._pausing():
            try:
                return self._kinds["begin"](client, "", arguments, Path())
            except Exception as error:
                self._note(error)
        run_id = f"{_PENDING}{uuid.uuid4().hex}"
        self._keep(run_id, "begin", arguments)
        return run_id

    def send(
        self,
        client: MlflowClient,
        run_id: str,
        kind: str,
        arguments: dict,
        write_now: Callable[[str], object],
        save_files: Callable[[Path], object] = lambda folder: None,
    ) -> None:
        """Writes a record now, or keeps it behind those that wait already.

        Args:
          client: of the store.
          run_id: of the run, pending or real.
          kind: what `deliver` will use, a key of `kinds`.
          arguments: JSON-able.
          write_now: writes the record to the run whose id it is given.
          save_files: puts the record's files into a folder, if it has to wait.
        """
        if not self._pausing() and self._deliver(client, run_id):
            try:
                write_now(self.real_id(run_id))
                return
            except Exception as error:
                self._note(error)
        self._keep(run_id, kind, arguments, save_files)

    def deliver_all(self, client: MlflowClient) -> int:
        """Delivers what waits, of all runs; how many records still wait."""
        for folder in sorted(self.folder.glob("*")):
            if folder.is_dir():
                self._deliver(client, folder.name)
        return self.waiting()

    def waiting(self) -> int:
        """Records that the server has not seen."""
        return len(list(self.folder.glob(f"*/*/{_RECORD}")))

    def real_id(self, run_id: str) -> str:
        """The id that the server gave to a run once it was there."""
        known = self.folder / run_id / _REAL
        return known.read_text() if run_id.startswith(_PENDING) and known.exists() else run_id

    def _deliver(self, client: MlflowClient, run_id: str) -> bool:
        """Delivers the waiting records of one run, in order; whether none is left."""
        folder = self.folder / run_id
        for record in sorted(path.parent for path in folder.glob(f"*/{_RECORD}")):
            kind, arguments = json.loads((record / _RECORD).read_text())
            try:
                made = self._kinds[kind](client, self.real_id(run_id), arguments, record / _FILES)
            except Exception as error:
                self._note(error)
                return False
            if made is not None:
                (folder / _REAL).write_text(made)
            shutil.rmtree(record)
        if folder.is_dir() and not run_id.startswith(_PENDING):
            folder.rmdir()
        return True

    def _keep(
        self,
        run_id: str,
        kind: str,
        arguments: dict,
        save_files: Callable[[Path], object] = lambda folder: None,
    ) -> None:
        """Written whole or not at all: the record's own file comes last."""
        folder = self.folder / run_id
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        record = folder / f"{max(numbers, default=0) + 1:06d}"
        (record / _FILES).mkdir(parents=True)
        save_files(record / _FILES)
        partial = record / f"{_RECORD}.partial"
        partial.write_text(json.dumps([kind, arguments]))
        partial.rename(record / _RECORD)

    def _pausing(self) -> bool:
        return time.monotonic() - self._away_since < _PAUSE_S

    def _note(self, error: Exception) -> None:
        """Remembers that the server is away; any other error is the caller's."""
        if not is_away(error):
            raise error
        self._away_since = time.monotonic()
