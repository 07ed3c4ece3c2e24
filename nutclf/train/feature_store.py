"""A content-addressed store of arrays on disk: computed once, shared by every trial and worker."""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

_WAIT_NOTICE_S = 5.0
_FILES = "[jnp]*"  # suffixes of an entry: json, npy and partial-<process>, but not lock
Fill = Callable[[np.ndarray], None]


def _silent(line: str) -> None:
    """Not a lambda: a store must be picklable to reach a worker."""


class FeatureStore:
    """Arrays named by a hash of everything they depend on; `say` takes lines for a person.

    An entry is `<name>.npy` beside `<name>.json`, its key and checksum. Both are renamed into
    place, the array first: a process killed at any instant leaves what counts as missing. The least
    recently used entries are removed to stay within the budget.
    """

    def __init__(self, folder: Path, budget_bytes: int, say: Callable[[str], None] = _silent):
        self.folder, self.budget_bytes, self._say = Path(folder), budget_bytes, say
        self._checked: set[str] = set()
        self.folder.mkdir(parents=True, exist_ok=True)

    def fits(self, n_bytes: int) -> bool:
        """Whether an array of this size may be stored: within the budget, and on the disk."""
        free = shutil.disk_usage(self.folder).free + sum(size for _, size, _ in self._entries())
        return n_bytes <= min(self.budget_bytes, free)

    def get(self, key: dict, shape: tuple[int, ...], dtype: str, fill: Fill) -> np.ndarray:
        """The array for `key`, read-only and memory-mapped; `fill` writes it if it is not stored.

        Everything that the content depends on is in the key, which is JSON-serialisable.
        """
        key = key | {"shape": list(shape), "dtype": dtype}
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        array, _ = self._load(name)
        if array is None:
            with self._lock(name):
                array, damage = self._load(name)  # another process may have made it since
                if damage:
                    self._say(f"feature store: entry {name[:8]} is {damage}; making it again")
                if array is None:
                    self._remove(name)  # also what a killed process left of it
                    self._make_room(int(np.prod(shape)) * np.dtype(dtype).itemsize)
                    array = self._write(name, key, shape, dtype, fill)
        self._checked.add(name)
        with suppress(FileNotFoundError):  # removed by another process that needs room
            os.utime(self.folder / f"{name}.json")
        return array

    def check(self) -> list[tuple[str, str]]:
        """(name, what is wrong) of every broken entry; those being written now are skipped."""
        return [(name, fault) for name in self._idle() if (fault := self._fault(name))]

    def discard(self, name: str) -> None:
        """Removes an entry if it is broken, as `check` reports it; it will be made again."""
        with FileLock(self.folder / f"{name}.lock"):
            if self._fault(name):
                self._remove(name)

    def _fault(self, name: str) -> str:
        return self._leftover(name) or self._load(name)[1]

    def _leftover(self, name: str) -> str:
        """What a killed process left of an entry whose lock is held, in words; "" for nothing."""
        kinds = {file.suffix for file in self.folder.glob(f"{name}.{_FILES}")}
        missing = {".json": "its record is missing", ".npy": "its array is missing"}
        if kinds - missing.keys():
            return "half-written by a process that is gone"
        return next((said for kind, said in missing.items() if kinds and kind not in kinds), "")

    def _load(self, name: str) -> tuple[np.ndarray | None, str]:
        """The entry and ""; None and "" where it is missing; None and what is wrong with it."""
        file = self.folder / f"{name}.npy"
        try:
            record = json.loads(file.with_suffix(".json").read_text())
            array = np.load(file, mmap_mode="r")
            if name not in self._checked and _checksum(file) != record["crc32"]:
                raise ValueError("checksum differs")
        except FileNotFoundError:
            return None, ""
        except (ValueError, KeyError, OSError, EOFError) as error:
            return None, f"damaged ({error})"
        return array, ""

    def _write(self, name: str, key: dict, shape: tuple, dtype: str, fill: Fill) -> np.ndarray:
        partial = self.folder / f"{name}.partial-{os.getpid()}"
        try:
            array = np.lib.format.open_memmap(partial, "w+", dtype=np.dtype(dtype), shape=shape)
            if hasattr(os, "posix_fallocate"):  # not on macOS
                # A full disk raises here; later, a write to the mapped file would kill by SIGBUS.
                with partial.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
            fill(array)
            array.flush()
            record = json.dumps({"key": key, "crc32": _checksum(partial)}, sort_keys=True, indent=1)
            # Mapped before it is visible: another process that needs room may remove it at once.
            array = np.load(partial, mmap_mode="r")
            partial.replace(self.folder / f"{name}.npy")
            partial.write_text(record)
            partial.replace(self.folder / f"{name}.json")
            return array
        finally:
            partial.unlink(missing_ok=True)

    def _lock(self, name: str) -> AbstractContextManager:
        """One process computes, the others wait and say so. A lock ends with its process."""
        lock = FileLock(self.folder / f"{name}.lock")
        try:
            return lock.acquire(timeout=_WAIT_NOTICE_S)
        except Timeout:
            self._say(f"feature store: waiting for another process to make {name[:8]}")
            return lock.acquire()

    def _idle(self) -> Iterator[str]:
        """Names of the entries that nobody is writing, each locked until the next is asked for."""
        files = self.folder.glob(f"*.{_FILES}")
        for name in sorted({file.name.split(".")[0] for file in files}):
            with suppress(Timeout), FileLock(self.folder / f"{name}.lock", timeout=0):
                yield name

    def _make_room(self, n_bytes: int) -> None:
        """Removes what killed processes left, then the least recently used, until it fits."""
        with FileLock(self.folder / "store.lock"):
            for name in self._idle():
                if self._leftover(name):
                    self._remove(name)
            entries = sorted(self._entries())
            while entries and (
                n_bytes + sum(size for _, size, _ in entries) > self.budget_bytes
                or n_bytes > shutil.disk_usage(self.folder).free
            ):
                self._remove(entries.pop(0)[2])  # a process that has it mapped can still read it

    def _remove(self, name: str) -> None:
        # Sorted, the record goes first: without it an array does not count.
        for file in sorted(self.folder.glob(f"{name}.{_FILES}")):
            file.unlink(missing_ok=True)

    def _entries(self) -> list[tuple[float, int, str]]:
        """(last use, bytes, name) of every whole entry."""
        entries = []
        for file in self.folder.glob("*.json"):
            with suppress(FileNotFoundError):  # removed by another process since the listing
                size = file.with_suffix(".npy").stat().st_size
                entries.append((file.stat().st_mtime, size, file.stem))
        return entries


def _checksum(path: Path) -> int:
    """CRC-32 of a file: finds truncation and bad sectors, and is as fast as the disk."""
    crc = 0
    with path.open("rb") as file:  # not mapped: every page would count as this process's memory
        while chunk := file.read(1 << 24):
            crc = zlib.crc32(chunk, crc)
    return crc
