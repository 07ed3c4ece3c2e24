"""The engine of many machines: workers on the nodes of a Ray cluster."""

import os
import queue
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # read by Ray when imported
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nutclf.errors import UserError
from nutclf.process import quiet
from nutclf.search.engines import Task, Worker, WorkerLost, Workers, heed

if TYPE_CHECKING:
    from nutclf.train.jobs import Job, Setting

_CONNECT_S = 5.0  # Ray itself waits for a silent address for minutes
_LOOK_S = 5.0  # between looks for nodes that came
_PATIENCE_S = 600.0  # without a worker


class UnfitNode(Exception):
    """A node differs from the driver, or cannot write: it gets no work."""


class RayCluster(Workers):
    """Up to `n` workers on the nodes of a cluster, or as many as there is room for.

    A worker has a GPU to itself on nodes with GPUs, `cpus_per_fit` processors on others. Nodes that
    die take their workers with them, nodes that come get some.
    """

    def __init__(self, address: str, n: int | None, cpus_per_fit: int, say: Callable[[str], None]):
        """Raises `UserError`: no such cluster, another Ray or Python, no node with room for one."""
        super().__init__(say)
        _connect(address)
        self._most, self._cpus = n, cpus_per_fit
        self._coming: set[_Actor] = set()
        self._unfit: dict[str, str] = {}  # reasons, by id of the node
        self._parcel, self._packing = None, threading.Lock()
        self._alone_since = time.monotonic()
        nodes = self._nodes()
        if not any(map(self._room, nodes)):
            has = ", ".join(f"{_name(node)}: {_sizes(node)}" for node in nodes)
            ray.shutdown()
            raise UserError(
                f"No node of the cluster has room for a fit of {cpus_per_fit} processors ({has}); "
                "ask for fewer with CPUS_PER_FIT=."
            )
        self._grow()

    @property
    def n(self) -> int:
        return max(1, super().n)  # a job may wait for the first worker, or for the next

    def wait(self) -> None:
        with suppress(queue.Empty):
            self._heard(*self._inbox.get(timeout=_LOOK_S))
        if time.monotonic() > self._looked + _LOOK_S:
            self._grow()
        if self._idle or self._busy:
            self._alone_since = time.monotonic()
            return
        none_is_fit = self._unfit and not self._coming
        if none_is_fit or time.monotonic() > self._alone_since + _PATIENCE_S:
            why = "; ".join(self._unfit.values()) or "none is left, or none has room"
            raise UserError(
                f"No node of the cluster can work on this study ({why}). Mend or add nodes; the "
                "same command goes on."
            )

    def close(self) -> None:
        super().close()
        for worker in self._coming:
            worker.end()
        ray.shutdown()

    def parcel(self, setting: "Setting") -> list:
        """What a node may lack, put into the cluster once; Ray sends it once to each node."""
        from nutclf.train.node import pack

        with self._packing:
            self._parcel = self._parcel or [ray.put(pack(setting))]
        return self._parcel

    def _heard(self, worker: Worker, kind: str, serial: int, *message) -> None:
        if worker not in self._coming:
            super()._heard(worker, kind, serial, *message)
            return
        self._coming.remove(worker)
        if kind == "ready":
            self._idle.append(worker)
            self._hand_out()
        elif isinstance(message[0], UnfitNode):
            self._dismiss(worker, message[0])

    def _finish(self, worker: Worker, task: Task, done: Future) -> None:
        error = done.exception()
        if not isinstance(error, UnfitNode):
            super()._finish(worker, task, done)
            return
        self._dismiss(worker, error)
        self._waiting.appendleft(task)

    def _dismiss(self, worker: Worker, error: UnfitNode) -> None:
        """Ends the workers of a node, except those in the middle of a job."""
        if worker.node_id not in self._unfit:
            self._unfit[worker.node_id] = f"{worker.where}: {error}"
            self._say(f"node {worker.where} gets no work: {error}")
        worker.end()
        for other in [one for one in self._idle if one.node_id == worker.node_id]:
            self._idle.remove(other)
            other.end()
        self._grow()

    def _replace(self, worker: Worker) -> None:
        self._grow()

    def _grow(self) -> None:
        """Asks for workers where there is room, a node after the other."""
        self._looked = time.monotonic()
        there = Counter(w.node_id for w in (*self._idle, *self._busy, *self._coming))
        free = [node for node in self._nodes() if node["NodeID"] not in self._unfit]
        while free and (self._most is None or there.total() < self._most):
            node = min(free, key=lambda node: there[node["NodeID"]])
            if there[node["NodeID"]] >= self._room(node):
                free.remove(node)
                continue
            there[node["NodeID"]] += 1
            self._coming.add(_Actor(node, self._cpus, self._inbox, self.parcel))

    def _room(self, node: dict) -> int:
        """Of how many workers."""
        has = node["Resources"]
        return int(has.get("GPU", 0) or has.get("CPU", 0) // self._cpus)

    def _nodes(self) -> list[dict]:
        return [node for node in ray.nodes() if node["Alive"]]


class _Actor(Worker):
    """A process on a node of the cluster."""

    def __init__(
        self, node: dict, cpus: int, inbox: queue.SimpleQueue, parcel: Callable[["Setting"], list]
    ):
        super().__init__(inbox)
        self.node_id, self.where, self._parcel = node["NodeID"], _name(node), parcel
        self._is_open = False
        gpu = {"num_gpus": 1, "num_cpus": 0} if node["Resources"].get("GPU") else {"num_cpus": cpus}
        there = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        # Two calls at once: a job, and an answer to it.
        kind = ray.remote(_AtNode).options(max_concurrency=2, scheduling_strategy=there, **gpu)
        self._handle = kind.remote(self.where, cpus)
        self._in_thread(self._greet)

    def start(self, task: Task) -> None:
        self._in_thread(self._attend, task)

    def answer(self, serial: int, goes_on: bool) -> None:
        self._handle.answer.remote(serial, goes_on)

    def end(self) -> None:
        with suppress(RayError):
            ray.kill(self._handle)

    def _in_thread(self, work: Callable, *arguments) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _greet(self) -> None:
        from nutclf.train.node import versions

        try:
            theirs = ray.get(self._handle.versions.remote())
        except RayTaskError as error:  # a package is missing, say
            self.inbox.put((self, "lost", 0, UnfitNode(f"no worker starts there: {error.cause!r}")))
            return
        except RayError as error:
            self.inbox.put((self, "lost", 0, error))
            return
        ours = versions()
        if other := [name for name in ours if theirs[name] != ours[name]]:
            said = ", ".join(f"{name} {theirs[name]} (here {ours[name]})" for name in other)
            self.inbox.put((self, "lost", 0, UnfitNode(f"it has {said}")))
        else:
            self.inbox.put((self, "ready", 0))

    def _attend(self, task: Task) -> None:
        """Follows a job to its end, and tells the inbox of it."""
        done = Future()
        try:
            if not self._is_open:
                self._open(task.job.setting)
            for message in self._handle.run.remote(task.serial, task.job):
                kind, *told = ray.get(message)
                if kind == "result":
                    done.set_result(*told)
                elif kind == "error":
                    done.set_exception(*told)
                else:
                    self.inbox.put((self, kind, task.serial, *told))
        except RayTaskError as error:
            done.set_exception(error.cause)
        except RayError:
            done.set_exception(WorkerLost(f"a worker on node {self.where} was lost"))
        except Exception as error:
            done.set_exception(error)
        self.inbox.put((self, "done", task.serial, done))

    def _open(self, setting: "Setting") -> None:
        if not ray.get(self._handle.open.remote(setting, None)):
            ray.get(self._handle.open.remote(setting, self._parcel(setting)))
        self._is_open = True


class _AtNode:
    """The process itself. Keras keeps state by thread, so one thread does all that is its own."""

    def __init__(self, where: str, threads: int):
        self._where, self._answers = where, queue.SimpleQueue()
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))
        self._fits = ThreadPoolExecutor(1)
        self._fits.submit(quiet)

    def versions(self) -> dict[str, str]:
        from nutclf.train.node import versions

        return versions()

    def open(self, setting: "Setting", parcel: list | None) -> bool:
        """Opens a study; whether nothing is lacking. Raises `UnfitNode`."""
        from nutclf.train.node import Lacking, at_home

        def open_here() -> None:
            sent = ray.get(parcel[0]) if parcel else None
            self._setting = at_home(setting, sent, lambda line: None)

        try:
            self._fits.submit(open_here).result()
        except Lacking:
            return False
        except (UserError, OSError) as error:
            raise UnfitNode(str(error)) from error
        return True

    def run(self, serial: int, job: "Job") -> Iterator[tuple]:
        """What happens in a job, and last its ("result", ...) or ("error", ...)."""
        from dataclasses import replace

        from nutclf.train.jobs import run

        said = queue.SimpleQueue()

        def on_epoch(epoch: int, figures: dict[str, float]) -> None:
            said.put(("epoch", epoch, figures))
            heed(serial, job, self._answers.get, lambda: not self._answers.empty())

        def fit() -> None:
            try:
                here = replace(job, setting=self._setting)
                result = run(
                    here, on_epoch, lambda line: said.put(("say", f"{self._where}: {line}"))
                )
                said.put(("result", result))
            except OSError as error:  # a full disk, say
                said.put(("error", UnfitNode(str(error))))
            except Exception as error:
                error.add_note(f"On node {self._where}:\n{traceback.format_exc()}")
                said.put(("error", error))

        self._fits.submit(fit)
        while (message := said.get())[0] not in ("result", "error"):
            yield message
        yield message

    def answer(self, serial: int, goes_on: bool) -> None:
        self._answers.put((serial, goes_on))


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    way_out = "start one with `ray start --head`, or give the address of a running one with RAY="
    if address.startswith("ray://"):
        raise UserError(
            f"RAY is {address!r}, a Ray client's; run this on a node of the cluster (`ray start "
            "--address=... --num-cpus=0` makes this machine one), or through `ray job submit`."
        )
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
        ray.init(
            address,
            runtime_env={"py_modules": [str(Path(__file__).parents[1])]},
            log_to_driver=False,
            logging_level="error",
        )
    except (OSError, ValueError, ConnectionError) as error:
        raise UserError(f"No Ray cluster answers at {address!r} ({error}); {way_out}.") from error
    except RuntimeError as error:  # another version of Ray or Python
        reason = " ".join(str(error).split())
        raise UserError(
            f"The Ray cluster at {address!r} does not take this driver ({reason}); install the "
            "same versions on both."
        ) from error


def _name(node: dict) -> str:
    """What people call a node."""
    return node["NodeName"] or node["NodeManagerHostname"]


def _sizes(node: dict) -> str:
    has = node["Resources"]
    return f"{has.get('CPU', 0):.0f} processors, {has.get('GPU', 0):.0f} GPUs"
