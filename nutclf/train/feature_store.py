"""A content-addressed store of arrays on disk: computed once, shared by every trial and worker."""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

_WAIT_NOTICE_S = 5.0
_CHUNK = 1 << 24  # bytes read at a time when an array's checksum is taken

Fill = Callable[[np.ndarray], None]
Say = Callable[[str], None]


def _silent(line: str) -> None:
    """Says nothing; a function of the module, so that a store can be sent to a worker."""


class FeatureStore:
    """Arrays named by a hash of everything they depend on.

    An entry is `<name>.npy` beside `<name>.json` (what it depends on, its size, its checksum). The
    array is written to a temporary file, renamed, and only then given its `.json`: a process killed
    at any instant leaves an entry that the next reader sees as missing.

    Args:
      folder: made when missing.
      budget_bytes: the store removes its least recently used entries to stay within this.
      say: takes a line of progress for a person.
    """

    def __init__(self, folder: Path, budget_bytes: int, say: Say = _silent):
        self.folder, self.budget_bytes, self._say = Path(folder), budget_bytes, say
        self._checked: set[str] = set()
        self.folder.mkdir(parents=True, exist_ok=True)

    def fits(self, n_bytes: int) -> bool:
        """Whether an array of this size may be stored: within the budget, and on the disk."""
        reclaimable = sum(size for _, size, _ in self._entries())
        free = shutil.disk_usage(self.folder).free
        return n_bytes <= min(self.budget_bytes, free + reclaimable)

    def get(self, key: dict, shape: tuple[int, ...], dtype: str, fill: Fill) -> np.ndarray:
        """The array for `key`, computed by `fill` if it is not there whole.

        Args:
          key: JSON-able; everything that the content depends on.
          shape, dtype: of the array.
          fill: writes the content into the array that it is handed.

        Returns:
          A read-only memory-mapped array.
        """
        key = key | {"shape": list(shape), "dtype": dtype}
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        found = self._open(name)
        if found is not None:
            return found
        with self._only_one(name):
            found = self._open(name)  # another process may have made it while this one waited
            if found is None:
                self._make_room(name, int(np.prod(shape)) * np.dtype(dtype).itemsize)
                found = self._write(name, key, shape, dtype, fill)
        return found

    def check(self) -> list[tuple[str, str]]:
        """(name, what is wrong) of all that is not whole; what is being made now is passed over."""
        files = (
            file
            for kind in ("json", "npy", "*partial-*")
            for file in self.folder.glob(f"*.{kind}")
        )
        broken = []
        for name in sorted({file.name.split(".")[0] for file in files}):
            with suppress(Timeout), FileLock(self.folder / f"{name}.lock", timeout=0):
                if (reason := self._fault(name)) is not None:
                    broken.append((name, reason))
        return broken

    def discard(self, name: str) -> None:
        """Removes what is not whole of an entry, as `check` names it: it will be made again."""
        with FileLock(self.folder / f"{name}.lock"):
            for file in self.folder.glob(f"{name}.*partial-*"):
                file.unlink()
            if self._fault(name) is not None:
                for file in reversed(self._files(name)):
                    file.unlink(missing_ok=True)

    def _fault(self, name: str) -> str | None:
        """What is wrong with an entry that nobody is making; None when it is whole or not there."""
        array_file, record_file = self._files(name)
        if any(self.folder.glob(f"{name}.*partial-*")):
            return "half-written by a process that is gone"
        if record_file.exists() != array_file.exists():
            return f"its {'array' if record_file.exists() else 'record'} is missing"
        try:
            self._load(name)
        except FileNotFoundError:
            return None  # removed by another process that needed room
        except (ValueError, KeyError, OSError, EOFError) as error:
            return f"damaged ({error})"
        return None

    def _load(self, name: str) -> np.ndarray:
        array_file, record_file = self._files(name)
        record = json.loads(record_file.read_text())
        array = np.load(array_file, mmap_mode="r")
        if name not in self._checked and _checksum(array_file) != record["crc32"]:
            raise ValueError("checksum differs")
        return array

    def _open(self, name: str) -> np.ndarray | None:
        """The entry, or None when it is missing, cut short or damaged."""
        record_file = self._files(name)[1]
        try:
            array = self._load(name)
            os.utime(record_file)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, OSError, EOFError) as error:
            self._say(f"feature store: entry {name[:8]} is damaged ({error}); making it again")
            record_file.unlink(missing_ok=True)
            return None
        self._checked.add(name)
        return array

    def _write(self, name: str, key: dict, shape: tuple, dtype: str, fill: Fill) -> np.ndarray:
        array_file, record_file = self._files(name)
        partial = array_file.with_suffix(f".partial-{os.getpid()}")
        try:
            array = np.lib.format.open_memmap(partial, "w+", dtype=np.dtype(dtype), shape=shape)
            _claim_blocks(partial)
            fill(array)
            array.flush()
            del array
            record = {"key": key, "crc32": _checksum(partial), "bytes": partial.stat().st_size}
            # Mapped before it can be seen: another process that needs room may remove it at once.
            array = np.load(partial, mmap_mode="r")
            os.replace(partial, array_file)
            _write_atomically(record_file, json.dumps(record, sort_keys=True, indent=1))
            self._checked.add(name)
            return array
        finally:
            partial.unlink(missing_ok=True)

    @contextmanager
    def _only_one(self, name: str) -> Iterator[None]:
        """One process computes; the others wait and say so. The lock ends with its process."""
        lock = FileLock(self.folder / f"{name}.lock")
        while True:
            try:
                lock.acquire(timeout=_WAIT_NOTICE_S)
                break
            except Timeout:
                self._say(f"feature store: waiting for another process to make {name[:8]}")
        try:
            yield
        finally:
            lock.release()

    def _make_room(self, name: str, n_bytes: int) -> None:
        """Removes the entries unused for longest until `n_bytes` for entry `name` fit."""
        with FileLock(self.folder / "store.lock"):
            self._remove_leftovers(name)
            entries = sorted(self._entries())
            used = sum(size for _, size, _ in entries)
            for _, size, unused in entries:
                free = shutil.disk_usage(self.folder).free
                if used + n_bytes <= self.budget_bytes and n_bytes <= free:
                    return
                # A process that has the file mapped keeps its content until it lets go.
                for file in reversed(self._files(unused)):
                    file.unlink(missing_ok=True)
                used -= size

    def _remove_leftovers(self, mine: str) -> None:
        """Half-written files of processes that are gone, and arrays that never got a record.

        Whoever writes an entry holds its lock, as the caller does that of `mine`. A process number
        would not tell: it is used again, and means nothing in another container or on another host.
        """
        for file in (*self.folder.glob("*.partial-*"), *self.folder.glob("*.npy")):
            name = file.name.split(".")[0]
            record_file = self._files(name)[1]
            if file.suffix == ".npy" and record_file.exists():
                continue
            lock = FileLock(self.folder / f"{name}.lock")
            try:
                with nullcontext() if name == mine else lock.acquire(timeout=0):
                    if file.suffix != ".npy" or not record_file.exists():
                        file.unlink(missing_ok=True)
            except Timeout:
                continue

    def _entries(self) -> list[tuple[float, int, str]]:
        """(last use, bytes, name) of every whole entry."""
        entries = []
        for record_file in self.folder.glob("*.json"):
            try:
                size = record_file.with_suffix(".npy").stat().st_size
                entries.append((record_file.stat().st_mtime, size, record_file.stem))
            except FileNotFoundError:
                continue  # removed by another process since the listing
        return entries

    def _files(self, name: str) -> tuple[Path, Path]:
        return self.folder / f"{name}.npy", self.folder / f"{name}.json"


def _checksum(path: Path) -> int:
    """CRC-32 of a file: enough against truncation and bad sectors, and as fast as the disk."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _claim_blocks(path: Path) -> None:
    """Has the disk set aside what a new file will hold: a full disk raises OSError here.

    The file is sparse; writing to the memory of a block that cannot be had kills by SIGBUS.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_suffix(f".json.partial-{os.getpid()}")
    partial.write_text(text)
    os.replace(partial, path)
