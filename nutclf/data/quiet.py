"""Keeps in what libraries say on their own."""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_saved_filters: list[warnings.catch_warnings] = []
_readers = 0


@contextmanager
def native_messages_hidden() -> Iterator[None]:
    """Hides what C++ writes to the file of errors itself, where there is no switch for it."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def pillow_silenced() -> Iterator[None]:
    """Ignores what Pillow warns of (bad EXIF, odd tags): a file is read, or it is refused.

    `catch_warnings` swaps the filters of the whole process, so threads that each did it would
    restore them in the wrong order; the first reader in swaps, the last one out restores.
    """
    global _readers  # noqa: PLW0603 - counts over all threads
    with _lock:
        _readers += 1
        if _readers == 1:
            _saved_filters.append(warnings.catch_warnings())
            _saved_filters[0].__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _saved_filters.pop().__exit__(None, None, None)
