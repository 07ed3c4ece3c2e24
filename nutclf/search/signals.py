"""Ctrl-C and SIGTERM: heard once, and never in the middle of a record."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_BOTH = (signal.SIGINT, signal.SIGTERM)


def hear_signals_once() -> None:
    """Ctrl-C raises KeyboardInterrupt and SIGTERM SystemExit(143), once: the end is not ended."""

    def stop(number: int, frame: object) -> None:
        for one in _BOTH:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    for one in _BOTH:
        signal.signal(one, stop)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Signals that come within are heard at its end: what is written in here is written whole.

    By handlers, not by a mask: a mask holds for one thread, and TensorFlow has others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # the system hands signals to the main thread only
        return
    late: list[int] = []
    before = {one: signal.signal(one, lambda number, frame: late.append(number)) for one in _BOTH}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if late:
            signal.raise_signal(late[0])
