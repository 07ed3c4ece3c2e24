"""Keeps Pillow's warnings in, from any number of threads at once."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_saved_filters: list[warnings.catch_warnings] = []
_readers = 0


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
