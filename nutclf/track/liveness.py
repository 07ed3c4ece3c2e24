"""Which processes are at work on a store: each holds a lock for its life, which ends with it.

A process number would not tell: it is used again, and means nothing in another container. A lock is
let go by the system itself, also after SIGKILL.
"""

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_FOLDER, _SUFFIX = "workers", ".lock"


@contextmanager
def hold(store_folder: Path) -> Iterator[str]:
    """Makes this process known as being at work on a store, until the end of the block.

    Args:
      store_folder: made when missing; processes on other machines must see the same folder.

    Yields:
      The worker's name, never used before: what records carry, so that `alive` can answer for them.
    """
    folder = store_folder / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _forget_the_dead(folder)
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    lock_file = folder / f"{worker}{_SUFFIX}"
    with FileLock(lock_file):
        try:
            yield worker
        finally:
            lock_file.unlink(missing_ok=True)


def alive(store_folder: Path, worker: str) -> bool:
    """Whether the process that `hold` gave this name is still inside its block."""
    return _is_locked(store_folder / _FOLDER / f"{worker}{_SUFFIX}")


def workers(store_folder: Path) -> set[str]:
    """Names of all processes that are at work on a store now."""
    files = (store_folder / _FOLDER).glob(f"*{_SUFFIX}")
    return {file.name.removesuffix(_SUFFIX) for file in files if _is_locked(file)}


def _is_locked(file: Path) -> bool:
    if not file.exists():  # to try a lock makes its file
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True


def _forget_the_dead(folder: Path) -> None:
    """Removes the files of killed processes; they count as dead with or without one.

    Under the file's lock: its owner may be just about to take it, and then makes it anew.
    """
    for file in folder.glob(f"*{_SUFFIX}"):
        with suppress(Timeout), FileLock(file, timeout=0):
            file.unlink(missing_ok=True)
