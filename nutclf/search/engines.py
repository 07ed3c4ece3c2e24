"""Engines: where the jobs of a study run.

The driver knows `n`, `submit`, `cancel`, `wait` and `close`. `submit(job, on_epoch)` gives a
future; `on_epoch` and the future's result come while the driver is in `wait`, in its own thread. A
fit whose worker was killed is run again here, and nobody above notices. Here are the processes of
this machine; `nutclf.search.ray_engine` has those of many.
"""

import multiprocessing
import os
import queue
import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
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
    """A fit was stopped by the driver after an epoch, or before it began."""


class WorkerDied(Exception):
    """A job's workers ended `MAX_ATTEMPTS` times in the middle of it."""


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

    def cancel(self, future: Future) -> None:
        pass

    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Task:
    """A job on its way; `serial` tells its messages from those of the worker's last job."""

    job: "Job"
    on_epoch: OnEpoch
    serial: int
    future: Future = field(default_factory=Future)
    attempts: int = 0
    is_cancelled: bool = False


class WorkerLost(Exception):
    """What a worker's job ends with when the worker itself has ended."""


class Worker(ABC):
    """One process that runs jobs, and what is known of it here.

    What happens to a job goes to the inbox, as (worker, kind, serial, ...): "epoch" with its number
    and figures, "say" with a line, "done" with a future of the result, or of `WorkerLost`.
    """

    def __init__(self, inbox: queue.SimpleQueue):
        self.inbox, self.last_recipe, self.n_recipes = inbox, None, 0

    @abstractmethod
    def start(self, task: Task) -> None:
        """Begins a job."""

    @abstractmethod
    def answer(self, serial: int, goes_on: bool) -> None:
        """Tells a job, after its next epoch, whether to go on."""

    @abstractmethod
    def end(self) -> None:
        """Ends the process, whatever it is at."""


class Workers(ABC):
    """An engine of processes. One job is at a worker; what finds none idle waits its turn."""

    def __init__(self, say: Callable[[str], None]):
        self._say, self._submitted = say, 0
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._idle: list[Worker] = []
        self._busy: dict[Worker, Task] = {}
        self._waiting: deque[Task] = deque()

    @property
    def n(self) -> int:
        """How many jobs run at once."""
        return len(self._idle) + len(self._busy)

    def submit(self, job: "Job", on_epoch: OnEpoch) -> Future:
        """Hands a job to an idle worker, or lets it wait for one."""
        self._submitted += 1
        task = Task(job, on_epoch, self._submitted)
        self._waiting.append(task)
        self._hand_out()
        return task.future

    def cancel(self, future: Future) -> None:
        """Ends a job whose result nobody waits for, a fit under way after its epoch."""
        for task in [task for task in self._waiting if task.future is future]:
            self._waiting.remove(task)
            future.set_exception(Stopped())
        for worker, task in self._busy.items():
            if task.future is future and not task.is_cancelled:
                task.is_cancelled = True
                worker.answer(task.serial, False)

    def wait(self) -> None:
        """Blocks until a worker has something to say, and passes it on."""
        self._heard(*self._inbox.get())

    def close(self) -> None:
        """Ends all workers, whatever they are at."""
        for worker in (*self._idle, *self._busy):
            worker.end()

    @abstractmethod
    def _replace(self, worker: Worker) -> None:
        """Sees to it that another worker comes in the place of one that has ended."""

    def _heard(self, worker: Worker, kind: str, serial: int, *message) -> None:
        task = self._busy.get(worker)
        if task is None or task.serial != serial:  # of a job that was given up
            return
        if kind == "say":
            self._say(*message)
        elif kind == "epoch" and not task.is_cancelled:
            goes_on = task.on_epoch(*message)
            if task.job.may_stop:
                worker.answer(serial, goes_on)
        elif kind == "done":
            del self._busy[worker]
            self._finish(worker, task, message[0])
            self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._idle:
            task = self._waiting.popleft()
            recipe = _recipe_of(task.job)
            # The folds of a recipe share the graph that their worker has traced.
            worker = next((w for w in self._idle if w.last_recipe == recipe), self._idle[0])
            self._idle.remove(worker)
            if worker.last_recipe != recipe:
                if worker.n_recipes >= RECIPES_PER_WORKER:
                    worker.end()
                    self._waiting.appendleft(task)
                    self._replace(worker)
                    continue
                worker.last_recipe, worker.n_recipes = recipe, worker.n_recipes + 1
            self._busy[worker] = task
            worker.start(task)

    def _finish(self, worker: Worker, task: Task, done: Future) -> None:
        error = done.exception()
        if not isinstance(error, WorkerLost):
            self._idle.append(worker)
            task.future.set_exception(error) if error else task.future.set_result(done.result())
            return
        worker.end()
        self._replace(worker)
        self._again(task, str(error))

    def _again(self, task: Task, reason: str) -> None:
        """Puts a job whose worker was lost in front of those that wait."""
        task.attempts += 1
        if task.is_cancelled:
            task.future.set_exception(Stopped())
        elif task.attempts < MAX_ATTEMPTS:
            self._say(f"{reason}; its fit is run again")
            self._waiting.appendleft(task)
        else:
            task.future.set_exception(WorkerDied(f"{reason}, {task.attempts} times"))


class LocalProcesses(Workers):
    """`n` worker processes on this machine, which divide its processors among them.

    Each is an executor of its own: of a shared pool one killed worker breaks every future.
    """

    def __init__(self, n: int, say: Callable[[str], None]):
        super().__init__(say)
        self._threads = n_threads() // n if n > 1 else None
        for _ in range(n):
            self._replace(None)

    def _replace(self, worker: Worker | None) -> None:
        self._idle.append(_Process(self._threads, self._inbox))


class _Process(Worker):
    """A process of this machine."""

    def __init__(self, threads: int | None, inbox: queue.SimpleQueue):
        super().__init__(inbox)
        context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
        self._pipe, theirs = context.Pipe()
        # Its end is the worker's end, also where this process is killed.
        held_by_worker, self._lifeline = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, _begin, (theirs, held_by_worker, threads))
        with _interrupts_ignored():
            self._pool.submit(quiet)  # imports TensorFlow while the driver prepares the study
        theirs.close()
        held_by_worker.close()
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, task: Task) -> None:
        def tell(done: Future) -> None:
            if isinstance(done.exception(), BrokenProcessPool):
                done = Future()
                done.set_exception(WorkerLost("a worker process was killed, or crashed"))
            self.inbox.put((self, "done", task.serial, done))

        try:
            done = self._pool.submit(_work, task.serial, task.job)
        except BrokenProcessPool as error:  # it was killed while it was idle
            done = Future()
            done.set_exception(error)
        done.add_done_callback(tell)

    def answer(self, serial: int, goes_on: bool) -> None:
        with suppress(OSError):  # it was killed; its task begins anew
            self._pipe.send((serial, goes_on))

    def end(self) -> None:
        self._lifeline.close()
        self._pool.shutdown(cancel_futures=True)

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self.inbox.put((self, *self._pipe.recv()))


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
        heed(serial, job, _driver.recv, _driver.poll)

    return run(job, on_epoch, lambda line: _driver.send(("say", serial, line)))


def heed(
    serial: int, job: "Job", answer: Callable[[], tuple[int, bool]], is_there: Callable[[], bool]
) -> None:
    """In a worker, after an epoch: raises `Stopped` where the driver has said so.

    A fit that may be stopped waits for an answer, another one is told only to stop. Answers to
    earlier jobs are passed over.
    """
    while job.may_stop or is_there():
        about, goes_on = answer()
        if about == serial:
            if not goes_on:
                raise Stopped
            return


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started within do not hear Ctrl-C, which is their driver's to answer."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
