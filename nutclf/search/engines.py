"""Engines: where the jobs of a study run. The driver knows `n`, `submit`, `wait` and `close`.

`submit(job, on_epoch)` gives a future; `on_epoch` and the future's result come while the driver is
in `wait`, in its own thread. A fit whose worker was killed is run again here, and nobody above
notices.
"""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from nutclf.process import n_threads, quiet

if TYPE_CHECKING:  # a worker imports this file before it knows how many threads are its own
    from nutclf.train.jobs import Job

MAX_ATTEMPTS = 3
RECIPES_PER_WORKER = 20
"""Keras keeps 10 to 200 MB of every model built in a process; only its end gives them back."""

OnEpoch = Callable[[int, dict[str, float]], bool]
"""Takes the 1-based epoch and its figures; whether a fit that may be stopped goes on."""


class Stopped(Exception):
    """A fit was stopped by the driver after an epoch."""


class WorkerDied(Exception):
    """A job's worker processes ended `MAX_ATTEMPTS` times in the middle of it."""


class ThisProcess:
    """Runs each job at once, here: for tests, and for looking into a fit with a debugger."""

    n = 1

    def __init__(self, say: Callable[[str], None] = lambda line: None):
        self._say = say

    def submit(self, job: "Job", on_epoch: OnEpoch) -> Future:
        """Runs the job; the future that it gives is done."""
        from nutclf.train.jobs import run

        def heard(epoch: int, figures: dict[str, float]) -> None:
            if not on_epoch(epoch, figures) and job.may_stop:
                raise Stopped

        future = Future()
        try:
            future.set_result(run(job, heard, self._say))
        except Exception as error:
            future.set_exception(error)
        return future

    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class _Task:
    """A job on its way; `serial` tells its messages from those of the worker's last job."""

    job: "Job"
    on_epoch: OnEpoch
    serial: int
    future: Future = field(default_factory=Future)
    attempts: int = 0


class LocalProcesses:
    """`n` worker processes on this machine, which divide its processors among them.

    Each is an executor of its own: of a shared pool one killed worker breaks every future.
    """

    def __init__(self, n: int, say: Callable[[str], None]):
        self.n, self._say = n, say
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._idle = [self._new_worker() for _ in range(n)]
        self._busy: dict[_Worker, _Task] = {}
        self._submitted = 0

    def submit(self, job: "Job", on_epoch: OnEpoch) -> Future:
        """Hands a job to an idle worker; there must be one."""
        self._submitted += 1
        task = _Task(job, on_epoch, self._submitted)
        self._start(task)
        return task.future

    def wait(self) -> None:
        """Blocks until a worker has something to say, and passes it on."""
        worker, kind, *message = self._inbox.get()
        task = self._busy.get(worker)
        if kind == "say":
            self._say(*message)
        elif task and kind == "epoch" and message[0] == task.serial:
            goes_on = task.on_epoch(*message[1:])
            if task.job.may_stop:
                worker.answer(goes_on)
        elif task and kind == "done" and message[0] == task.serial:
            del self._busy[worker]
            self._finish(worker, task, message[1])

    def close(self) -> None:
        """Ends all workers, whatever they are at."""
        for worker in (*self._idle, *self._busy):
            worker.end()

    def _start(self, task: _Task) -> None:
        recipe = _recipe_of(task.job)
        # The folds of a recipe share the graph that their worker has traced.
        worker = next((w for w in self._idle if w.last_recipe == recipe), self._idle[0])
        self._idle.remove(worker)
        if worker.last_recipe != recipe:
            if worker.n_recipes >= RECIPES_PER_WORKER:
                worker.end()
                worker = self._new_worker()
            worker.last_recipe, worker.n_recipes = recipe, worker.n_recipes + 1
        self._busy[worker] = task
        worker.start(task)

    def _finish(self, worker: "_Worker", task: _Task, done: Future) -> None:
        error = done.exception()
        if not isinstance(error, BrokenProcessPool):
            self._idle.append(worker)
            task.future.set_exception(error) if error else task.future.set_result(done.result())
            return
        worker.end()
        self._idle.append(self._new_worker())
        task.attempts += 1
        if task.attempts < MAX_ATTEMPTS:
            self._say("a worker process was killed, or crashed; its fit is run again")
            self._start(task)
        else:
            task.future.set_exception(
                WorkerDied(f"its worker process was killed, or crashed, {task.attempts} times")
            )

    def _new_worker(self) -> "_Worker":
        return _Worker(n_threads() // self.n if self.n > 1 else None, self._inbox)


class _Worker:
    """One process, and what is known of it here."""

    def __init__(self, threads: int | None, inbox: queue.SimpleQueue):
        context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
        self._pipe, theirs = context.Pipe()
        # Its end is the worker's end, also where this process is killed.
        held_by_worker, self._lifeline = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, _begin, (theirs, held_by_worker, threads))
        self.last_recipe, self.n_recipes, self._inbox = None, 0, inbox
        with _interrupts_ignored():
            self._pool.submit(quiet)  # imports TensorFlow while the driver prepares the study
        theirs.close()
        held_by_worker.close()
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, task: _Task) -> None:
        """Begins a job; its end is told to the inbox."""
        try:
            done = self._pool.submit(_work, task.serial, task.job)
        except BrokenProcessPool as error:  # it was killed while it was idle
            done = Future()
            done.set_exception(error)
        done.add_done_callback(lambda done: self._inbox.put((self, "done", task.serial, done)))

    def answer(self, goes_on: bool) -> None:
        """Tells a fit that waits whether to go on."""
        with suppress(OSError):  # it was killed; its task begins anew
            self._pipe.send(goes_on)

    def end(self) -> None:
        """Ends the process, whatever it is at."""
        self._lifeline.close()
        self._pool.shutdown(cancel_futures=True)

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._inbox.put((self, *self._pipe.recv()))


def _recipe_of(job: "Job") -> tuple:
    fit = getattr(job, "answering", job)
    return getattr(fit, "recipe", None), getattr(fit, "seed", None)  # a probe has neither


_driver: Connection | None = None


def _begin(pipe: Connection, lifeline: Connection, threads: int | None) -> None:
    """Runs first in a worker."""
    global _driver  # noqa: PLW0603 - a worker has one driver
    _driver = pipe
    if threads is not None:  # a person's own setting wins
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, threads)))

    def end_with_driver() -> None:
        with suppress(EOFError, OSError):
            lifeline.recv()
        os._exit(1)

    threading.Thread(target=end_with_driver, daemon=True).start()


def _work(serial: int, job: "Job"):
    """Runs a job in a worker."""
    from nutclf.train.jobs import run

    def on_epoch(epoch: int, figures: dict[str, float]) -> None:
        _driver.send(("epoch", serial, epoch, figures))
        if job.may_stop and not _driver.recv():
            raise Stopped

    return run(job, on_epoch, lambda line: _driver.send(("say", line)))


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started within do not hear Ctrl-C, which is their driver's to answer."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
