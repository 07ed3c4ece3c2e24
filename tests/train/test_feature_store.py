import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from nutclf.train import feature_store as store_module
from nutclf.train.feature_store import FeatureStore

PLENTY = 1 << 30
SHAPE = (4, 25)  # 400 bytes of float32, behind a header of 128
ENTRY = 528

# Another process on the same store; `before` is run when an array is half filled.
OTHER = """
import os, sys, time
from pathlib import Path
from nutclf.train.store import FeatureStore

folder, keys, budget, floats, before = sys.argv[1:]
for key in keys.split(","):
    def fill(out):
        with open(Path(folder) / "fills.txt", "a") as log:
            log.write(key + "\\n")
        out[: len(out) // 2] = 1
        exec(before)
        out[:] = float(key)
    store = FeatureStore(Path(folder), int(budget))
    array = store.get({"n": int(key)}, (int(floats),), "float32", fill)
    assert (array == float(key)).all()
    print(key, flush=True)
"""


def start_other(folder: Path, keys: str, budget=PLENTY, floats=100, before=""):
    arguments = [str(folder), keys, str(budget), str(floats), before]
    return subprocess.Popen(
        [sys.executable, "-c", OTHER, *arguments], stdout=subprocess.PIPE, text=True
    )


def get(store: FeatureStore, n: int, shape=SHAPE, dtype="float32") -> tuple[np.ndarray, bool]:
    """The entry for {"n": n}, all of it n, and whether it had to be filled."""
    filled = []

    def fill(out):
        filled.append(n)
        out[:] = n

    return store.get({"n": n}, shape, dtype, fill), bool(filled)


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def last_used(folder: Path, n: int, seconds: float) -> None:
    """Sets when entry `n` was last used."""
    for record in folder.glob("*.json"):
        if json.loads(record.read_text())["key"]["n"] == n:
            os.utime(record, (seconds, seconds))


def kept(folder: Path) -> set[int]:
    return {json.loads(record.read_text())["key"]["n"] for record in folder.glob("*.json")}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path, said) -> FeatureStore:
    return FeatureStore(tmp_path, PLENTY, said.append)


def test_an_entry_is_computed_once_also_for_another_store_on_the_folder(store, tmp_path):
    first, filled = get(store, 7)
    assert filled
    np.testing.assert_array_equal(first, np.full(SHAPE, 7, np.float32))
    for again, filled in (get(store, 7), get(FeatureStore(tmp_path, PLENTY), 7)):
        assert not filled
        np.testing.assert_array_equal(again, first)


def test_what_is_handed_out_cannot_be_written_to(store):
    for _ in range(2):  # fresh from filling, then opened
        with pytest.raises(ValueError, match="read-only"):
            get(store, 1)[0][0, 0] = 5


def test_another_key_shape_or_dtype_is_another_entry(store):
    get(store, 1)
    assert get(store, 2)[1]
    assert get(store, 1, shape=(25, 4))[1]
    half, filled = get(store, 1, dtype="float16")
    assert filled
    assert half.dtype == np.float16


def test_the_order_of_a_key_does_not_matter(store):
    store.get({"a": 1, "b": 2}, SHAPE, "float32", lambda out: None)
    store.get({"b": 2, "a": 1}, SHAPE, "float32", lambda out: pytest.fail("filled again"))


def test_a_fill_that_fails_leaves_nothing_and_can_be_repeated(store, tmp_path):
    def fill(out):
        out[0] = 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.get({"n": 3}, SHAPE, "float32", fill)
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock"}
    assert get(store, 3)[1]


def cut_array_short(folder: Path) -> None:
    path = only(folder, "*.npy")
    path.write_bytes(path.read_bytes()[:-100])


def empty_array(folder: Path) -> None:
    only(folder, "*.npy").write_bytes(b"")


def flip_a_bit_of_array(folder: Path) -> None:
    path = only(folder, "*.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_record_short(folder: Path) -> None:
    path = only(folder, "*.json")
    path.write_text(path.read_text()[:20])


def forget_checksum(folder: Path) -> None:
    only(folder, "*.json").write_text("{}")


@pytest.mark.parametrize(
    "damage",
    [cut_array_short, empty_array, flip_a_bit_of_array, cut_record_short, forget_checksum],
)
def test_a_damaged_entry_is_noticed_said_and_made_again(tmp_path, store, said, damage):
    get(store, 7)
    damage(tmp_path)
    array, filled = get(FeatureStore(tmp_path, PLENTY, said.append), 7)
    assert filled
    assert len(said) == 1
    assert "damaged" in said[0]
    np.testing.assert_array_equal(array, np.full(SHAPE, 7, np.float32))
    assert not get(FeatureStore(tmp_path, PLENTY), 7)[1]


@pytest.mark.parametrize("pattern", ["*.json", "*.npy"])
def test_half_an_entry_is_no_entry(tmp_path, store, pattern):
    get(store, 7)
    only(tmp_path, pattern).unlink()
    array, filled = get(FeatureStore(tmp_path, PLENTY), 7)
    assert filled
    np.testing.assert_array_equal(array, np.full(SHAPE, 7, np.float32))


def test_the_least_recently_used_entries_leave_to_stay_within_the_budget(tmp_path):
    store = FeatureStore(tmp_path, 3 * ENTRY)
    for n in (1, 2, 3):
        get(store, n)
    for n, seconds in ((1, 100), (2, 200), (3, 300)):
        last_used(tmp_path, n, seconds)
    assert not get(store, 1)[1]  # now 2 is the one unused for longest
    get(store, 4)
    assert kept(tmp_path) == {1, 3, 4}
    assert sum(path.stat().st_size for path in tmp_path.glob("*.npy")) <= 3 * ENTRY
    assert get(store, 2)[1]


def test_an_entry_as_large_as_the_budget_displaces_all_others(tmp_path):
    store = FeatureStore(tmp_path, 3 * ENTRY)
    for n in (1, 2, 3):
        get(store, n)
    get(store, 4, shape=(3 * 100,))
    assert kept(tmp_path) == {4}


def test_a_removed_entry_stays_readable_for_who_has_it(tmp_path):
    store = FeatureStore(tmp_path, ENTRY)
    first, _ = get(store, 1)
    get(store, 2)
    assert kept(tmp_path) == {2}
    np.testing.assert_array_equal(first, np.full(SHAPE, 1, np.float32))


def test_fits_counts_what_could_be_removed_but_never_exceeds_the_budget(tmp_path):
    store = FeatureStore(tmp_path, 1000)
    assert store.fits(1000)
    assert not store.fits(1001)
    get(store, 1)
    assert store.fits(1000)  # entry 1 would make room
    assert not FeatureStore(tmp_path, 1 << 60).fits(1 << 59)  # no disk has that


def test_two_processes_at_once_compute_an_entry_once(tmp_path):
    slow = "time.sleep(0.5)"
    others = [start_other(tmp_path, "7", before=slow) for _ in range(2)]
    assert [other.communicate()[0] for other in others] == ["7\n", "7\n"]
    assert (tmp_path / "fills.txt").read_text() == "7\n"


def test_who_waits_for_another_process_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_WAIT_NOTICE_S", 0.05)
    at_work, done, said = threading.Event(), threading.Event(), []

    def fill(out):
        at_work.set()
        done.wait(10)
        out[:] = 1

    other = FeatureStore(tmp_path, PLENTY)
    thread = threading.Thread(target=other.get, args=({"n": 1}, SHAPE, "float32", fill))
    thread.start()
    at_work.wait(10)

    def say(line):
        said.append(line)
        done.set()

    _, filled = get(FeatureStore(tmp_path, PLENTY, say), 1)
    thread.join()
    assert not filled
    assert "waiting for another process" in said[0]


def test_a_writer_killed_while_filling_leaves_nothing_taken_as_whole(tmp_path, said):
    other = start_other(tmp_path, "7", before="print('half', flush=True); time.sleep(60)")
    assert other.stdout.readline() == "half\n"
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert only(tmp_path, "*.partial-*").stat().st_size == ENTRY

    store = FeatureStore(tmp_path, PLENTY, said.append)
    array = store.get({"n": 7}, (100,), "float32", lambda out: out.__setitem__(..., 7))
    np.testing.assert_array_equal(array, np.full(100, 7, np.float32))
    assert said == []  # the lock went with the process: nobody waited
    assert not list(tmp_path.glob("*.partial-*"))


def test_files_of_processes_that_are_gone_vanish_also_where_their_number_is_used_again(
    tmp_path, store
):
    leftovers = [
        tmp_path / f"aaaa.partial-{os.getpid()}",  # a number in use, in a restarted container
        tmp_path / "bbbb.json.partial-999999999",
        tmp_path / "cccc.npy",  # killed between the array and its record
    ]
    for path in leftovers:
        path.write_bytes(bytes(100))
    get(store, 1)
    assert not [path for path in leftovers if path.exists()]


def test_files_of_a_process_at_work_stay(tmp_path, store):
    # The number means nothing here: the process may be in another container, or on another host.
    at_work = [tmp_path / "aaaa.partial-999999999", tmp_path / "aaaa.npy"]
    for path in at_work:
        path.write_bytes(bytes(100))
    with FileLock(tmp_path / "aaaa.lock"):
        get(store, 1)
    assert all(path.exists() for path in at_work)


def test_processes_that_displace_each_others_entries_still_get_their_own(tmp_path):
    floats = 1 << 20  # 4 MB: its checksum takes long enough for the other process to come between
    others = [
        start_other(tmp_path, ",".join(map(str, range(first, first + 40))), 6 << 20, floats)
        for first in (100, 200)
    ]
    assert [(other.communicate()[0].count("\n"), other.returncode) for other in others] == [
        (40, 0),
        (40, 0),
    ]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot claim blocks")
def test_the_disk_sets_the_bytes_aside_before_they_are_filled(store, tmp_path):
    floats = 1 << 18

    def fill(out):
        # A full disk must fail before: a write to a mapped block that cannot be had kills.
        assert only(tmp_path, "*.partial-*").stat().st_blocks * 512 >= 4 * floats

    store.get({"n": 1}, (floats,), "float32", fill)
