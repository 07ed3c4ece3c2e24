"""Worker processes: started, replaced before their memory grows, and stopped together.

Keras keeps 10 to 200 MB of every model built in a process; only its end gives them back.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait

from nutclf.errors import SweepFailed, UserError
from nutclf.process import hear_signals_once

TRIALS_PER_PROCESS = 25
MAX_CRASHES_IN_A_ROW = 3
_PATIENCE_S = 60.0  # for a trial to record its own end once it was told to stop

Work = Callable[..., bool]
"""Module-level function; returns whether all work is done, and raises what the person must hear."""


def run_workers(n: int, work: Work, arguments: tuple, say: Callable[[str], None]) -> None:
    """Keeps `n` processes at `work(*arguments)` until one says that all is done.

    A process that returns False is replaced by a fresh one; so is one that crashed, while the
    others go on. Processors are divided among the processes. A single worker begins in this
    process, which has the libraries already: a child takes seconds to import them again.

    Raises:
      UserError, SweepFailed: as raised by a process; the others are stopped first.
      SweepFailed: processes crashed `MAX_CRASHES_IN_A_ROW` times without one that did not.
    """
    if n == 1 and work(*arguments):
        return
    running: dict[Connection, multiprocessing.Process] = {}
    finished, crashes = False, 0
    try:
        while running or not finished:
            while len(running) < n and not finished:
                process, answer = _start(work, arguments, n)
                running[answer] = process
            for answer in wait(list(running)):
                process, result = running.pop(answer), _received(answer)
                process.join()
                if isinstance(result, BaseException):
                    raise result
                finished |= result is True
                crashes = crashes + 1 if result is None else 0
                if result is None:
                    say(f"a worker crashed (exit code {process.exitcode}); its trial is run again")
                if crashes >= MAX_CRASHES_IN_A_ROW:
                    raise SweepFailed(
                        f"{crashes} workers crashed one after another, the last one with exit "
                        f"code {process.exitcode}"
                    )
    finally:
        _stop(list(running.values()))


def _start(work: Work, arguments: tuple, n: int) -> tuple[multiprocessing.Process, Connection]:
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, work, arguments))
    with _threads_divided(n), _interrupts_ignored():
        process.start()
    theirs.close()
    return process, ours


def _serve(answer: Connection, work: Work, arguments: tuple) -> None:
    """Runs in the worker: does the work, and sends back its result, or what a person must hear."""
    hear_signals_once()
    try:
        answer.send(work(*arguments))
    except (UserError, SweepFailed) as error:
        answer.send(error)
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _received(answer: Connection) -> bool | BaseException | None:
    """What a process sent before it ended; None if it ended without a word."""
    try:
        return answer.recv()
    except EOFError:
        return None
    finally:
        answer.close()


def _stop(processes: list[multiprocessing.Process]) -> None:
    """Ends processes as a person would, and by force those that do not listen."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _PATIENCE_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _threads_divided(n: int) -> Iterator[None]:
    """Children started within take their share of the processors; a person's own setting wins."""
    name = "TF_NUM_INTRAOP_THREADS"
    before = os.environ.get(name)
    if before is None and n > 1:
        from nutclf.process import n_threads

        os.environ[name] = str(max(1, n_threads() // n))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Children started within are deaf to Ctrl-C until they can record what it interrupts."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
