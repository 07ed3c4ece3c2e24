"""The process: quiet libraries, repeatable numbers, signals heard once, processors counted."""

import ctypes
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nutclf.errors import UserError

_BOTH = (signal.SIGINT, signal.SIGTERM)
# Of glibc's mallopt(3): no block of its own from the system, none given back, room to grow, and
# one heap for all threads.
_KEEP = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**26)}
_KEEP |= {"M_ARENA_MAX": (-8, 1)}


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


def accept_surroundings() -> None:
    """Makes do with what a terminal, a container and a person's own settings bring along.

    Raises `UserError` for what no library here can make do with.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a class name in a script it cannot show
    try:
        Path.home()
    except RuntimeError:  # a container's user may have a number, and neither name nor home
        os.environ["HOME"] = tempfile.gettempdir()
    if sys.flags.optimize > 1:
        raise UserError(
            "Python runs without docstrings (PYTHONOPTIMIZE=2 or -OO), which TensorFlow reads; "
            "unset PYTHONOPTIMIZE, or set it to 1."
        )
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        if (given := os.environ.get(name, "")) and not given.isdecimal():
            raise UserError(
                f"{name} is {given!r}; allowed: a whole number of threads, 0 or nothing for all."
            )
    # Settings of a person's other projects would be ours, and stop or change a training.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for name in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
        os.environ.pop(name, None)


def n_threads() -> int:
    """`TF_NUM_INTRAOP_THREADS`, which TensorFlow reads too, else all that the system grants.

    Several workers on one machine divide the processors by it.
    """
    asked = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    granted = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(granted(0)) if granted else os.cpu_count() or 1


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


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `UserError`: the port is taken, or the host not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (")[0]
        problem = f"{host} port {port} cannot be listened on ({reason})"
        raise UserError(f"{problem}; name another with PORT= or --host.") from error


def keep_freed_memory() -> None:
    """Lets a process use its large blocks of memory again, where the C library is glibc.

    By itself glibc gives each tensor of some megabytes back to the system, which has to clear
    every page anew: half of the processor's time in training was that (18 million page faults in
    six epochs of 29 layers; 0.1 million so, and 25 s instead of 58 to 65 s, on 2 cores). To be
    called before TensorFlow is imported, whose threads would have heaps of their own.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    for option, value in _KEEP.values() if mallopt else ():
        mallopt(option, value)


def quiet() -> None:
    """Imports TensorFlow and Keras, with our settings and without their announcements.

    Raises `UserError` where Keras cannot read its own settings.
    """
    keep_freed_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    try:
        with native_messages_hidden():  # TensorFlow prints on import, before a setting is heard
            import tensorflow  # noqa: F401
        import keras
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        folder = os.environ.get("KERAS_HOME") or "~/.keras"
        raise UserError(
            f"Keras cannot read its settings, {folder}/keras.json; correct or remove the file."
        ) from error
    # keras.json may say otherwise, for a person's other projects.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # They print a traceback of what they raise as well: of a query that a signal ends, a full disk.
    for name in ("sqlalchemy.pool", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Promotion opens several models, and TensorFlow takes that for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def has_gpu() -> bool:
    """Whether TensorFlow computes on a GPU here."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def seed_everything(seed: int) -> None:
    """Makes TensorFlow repeat itself bit for bit on the same machine."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    for gpu in tf.config.list_physical_devices("GPU"):
        # Otherwise the first process takes all of a GPU's memory.
        tf.config.experimental.set_memory_growth(gpu, True)
