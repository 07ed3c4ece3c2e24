"""PostgreSQL as the place of Optuna's records: its address, and locks that machines share."""

import hashlib
import os
import socket
import time
from contextlib import suppress

from sqlalchemy.engine import make_url

from nutclf.errors import UserError
from nutclf.process import signals_deferred

# A dead peer is noticed within a minute, and one that is away within 5 s.
CONNECT = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
_RETURN_S = 60.0  # so long a database may take to restart
_OURS = "nutclf "  # how the sessions that hold locks are named, then their holders
_HOLDERS = """
    SELECT application_name, to_char(backend_start, 'YYYY-MM-DD HH24:MI:SS')
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND application_name LIKE 'nutclf %%'
    AND (classid::bigint << 32 | objid::bigint = %(key)s OR %(key)s::bigint IS NULL)
    ORDER BY backend_start
"""


def is_postgres(url: str) -> bool:
    """Whether an address of SQLAlchemy's is one of PostgreSQL."""
    return url.startswith("postgresql")


def connect(url: str, user: str = ""):
    """A connection of psycopg's; everything is committed at once.

    Raises `UserError`: no answer, a wrong password, no such database, psycopg missing.
    """
    try:
        import psycopg
    except ModuleNotFoundError as error:
        raise UserError(
            "NUTCLF_OPTUNA_STORAGE names PostgreSQL, and psycopg is not installed; `make sweep` "
            "installs it, or: pip install 'psycopg[binary]'."
        ) from error
    address = make_url(url)
    name = f"{_OURS}{user}@{socket.gethostname()} (pid {os.getpid()})"[:63]
    try:
        plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(plain, autocommit=True, application_name=name, **CONNECT)
    except psycopg.Error as error:
        reason = " ".join(str(error).split())[-300:]
        raise UserError(
            f"PostgreSQL at {address.render_as_string()} cannot be used ({reason}); mend the "
            "address, user, password or database in NUTCLF_OPTUNA_STORAGE, or start the server."
        ) from error


class LockLost(UserError):
    """The database stays away, or another driver has taken over: this one writes nothing more."""


class AdvisoryLock:
    """A lock of PostgreSQL's on a connection of its own: it ends with its holder."""

    def __init__(self, url: str, what: str, user: str):
        self._url, self._what, self._user = url, what, user
        digest = hashlib.sha256(what.encode()).digest()
        self._key = int.from_bytes(digest[:8], signed=True)
        self._connection = None

    def acquire(self, patience_s: float) -> bool:
        """Whether the lock is held now; a held one is waited for."""
        self._connection = self._connection or connect(self._url, self._user)
        deadline = time.monotonic() + patience_s
        while not self._take():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def _take(self) -> bool:
        query = "SELECT pg_try_advisory_lock(%s)"
        return self._connection.execute(query, [self._key]).fetchone()[0]

    def was_lost(self) -> bool:
        """Whether the connection was lost, and the lock taken again: to be asked before a write.

        Raises `LockLost` where somebody else has it now, or the database stays away.
        """
        import psycopg

        with suppress(psycopg.Error), signals_deferred():
            self._connection.execute("SELECT 1")
            return False
        deadline, self._connection = time.monotonic() + _RETURN_S, None
        while True:
            try:
                if self.acquire(patience_s=0):
                    return True
                raise LockLost(
                    f"PostgreSQL was away, and {self._what} is now held by {self.holder()}; this "
                    "sweep ends, the other one goes on."
                )
            except LockLost:
                raise
            except UserError as error:
                if time.monotonic() > deadline:
                    raise LockLost(str(error)) from error
                time.sleep(1)

    def holder(self) -> str:
        """Who holds it, as `holders` says; "" for nobody."""
        return next(iter(holders(self._url, self._key)), "")

    def release(self) -> None:
        if self._connection is not None:
            self._connection.close()


def holders(url: str, key: int | None = None) -> list[str]:
    """Who holds this lock, or any of ours: "user@host (pid 1) since 2026-01-31 12:00:00"."""
    with connect(url) as connection:
        rows = connection.execute(_HOLDERS, {"key": key}).fetchall()
    return [f"{name.removeprefix(_OURS)} since {since}" for name, since in rows]
