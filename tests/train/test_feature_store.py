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

REPO = Path(__file__).parents[2]
PLENTY = 1 << 30
SHAPE = (4, 25)  # 400 bytes of float32, behind a header of 128
ENTRY = 528

# Another process on the same store; `before` is run when an array is half filled.
OTHER = """
import os, sys, time
from pathlib import Path
from nutclf.train.feature_store import FeatureStore

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
    command = [sys.executable, "-c", OTHER, str(folder), keys, str(budget), str(floats), before]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO)


def get(store: FeatureStore, n: int, shape=SHAPE, dtype="float32") -> tuple[np.ndarray, bool]:
    """The entry for {"n": n}, all of it n, and whether it had to be filled."""
    filled = []

    def fill(out):
        filled.append(n)
        out[:] = n

    array = store.get({"n": n}, shape, dtype, fill)
    np.testing.assert_array_equal(array, np.full(shape, n, dtype))
    return array, bool(filled)


def records(folder: Path) -> dict[int, Path]:
    """The record of each entry by its n."""
    return {json.loads(file.read_text())["key"]["n"]: file for file in folder.glob("*.json")}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path, said) -> FeatureStore:
    return FeatureStore(tmp_path, PLENTY, said.append)


def test_an_entry_is_computed_once_and_is_read_only(store, tmp_path):
    first, filled = get(store, 7)
    again, filled_again = get(FeatureStore(tmp_path, PLENTY), 7)
    assert (filled, filled_again) == (True, False)
    for array in (first, again):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 5


def test_another_key_shape_or_dtype_is_another_entry_and_the_order_of_a_key_is_not(store):
    get(store, 1)
    assert get(store, 2)[1]
    assert get(store, 1, shape=(25, 4))[1]
    assert get(store, 1, dtype="float16")[1]
    store.get({"a": 1, "b": 2}, SHAPE, "float32", lambda out: None)
    store.get({"b": 2, "a": 1}, SHAPE, "float32", lambda out: pytest.fail("filled again"))


def test_a_fill_that_fails_leaves_nothing_and_can_be_repeated(store, tmp_path):
    with pytest.raises(ZeroDivisionError):
        store.get({"n": 3}, SHAPE, "float32", lambda out: 1 / 0)
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock"}
    assert get(store, 3)[1]


# Damage


def truncate(array: Path) -> None:
    array.write_bytes(array.read_bytes()[:-100])


def empty(array: Path) -> None:
    array.write_bytes(b"")


def flip_a_bit(array: Path) -> None:
    array.write_bytes(array.read_bytes()[:-1] + bytes([array.read_bytes()[-1] ^ 1]))


def lose_array(array: Path) -> None:
    array.unlink()


def lose_record(array: Path) -> None:
    array.with_suffix(".json").unlink()


def truncate_record(array: Path) -> None:
    array.with_suffix(".json").write_text('{"key')


def forget_checksum(array: Path) -> None:
    array.with_suffix(".json").write_text("{}")


def leave_partial(array: Path) -> None:
    array.with_suffix(".partial-1").write_bytes(b"half")


DAMAGES = (truncate, empty, flip_a_bit, truncate_record, forget_checksum)
REMAINS = (lose_array, lose_record, leave_partial)


@pytest.mark.parametrize("damage", DAMAGES + REMAINS, ids=lambda damage: damage.__name__)
def test_a_broken_entry_is_reported_discarded_and_made_again(tmp_path, store, damage):
    for n in range(3):
        get(store, n)
    array = records(tmp_path)[1].with_suffix(".npy")
    damage(array)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    doctor = FeatureStore(tmp_path, 0)
    ((name, reason),) = doctor.check()
    assert name == array.stem
    assert reason
    after = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert after == before, "checking repairs nothing and does not count as use"
    doctor.discard(name)
    assert doctor.check() == []
    assert records(tmp_path).keys() == {0, 2}
    assert get(FeatureStore(tmp_path, PLENTY), 1)[1]


@pytest.mark.parametrize("damage", DAMAGES + REMAINS[:2], ids=lambda damage: damage.__name__)
def test_whoever_asks_for_a_broken_entry_gets_it_made_again(tmp_path, store, said, damage):
    get(store, 7)
    damage(next(tmp_path.glob("*.npy")))
    assert get(FeatureStore(tmp_path, PLENTY, said.append), 7)[1]
    assert ["damaged" in line for line in said] == [True] * (damage in DAMAGES)
    assert not get(FeatureStore(tmp_path, PLENTY), 7)[1]


def test_discarding_a_whole_entry_removes_nothing(store, tmp_path):
    get(store, 7)
    assert store.check() == []
    store.discard(records(tmp_path)[7].stem)
    assert not get(store, 7)[1]


def test_a_pickle_in_place_of_an_array_is_damage_and_is_not_executed(tmp_path, store):
    """NumPy's own format can hold one."""
    get(store, 7)
    bomb, array = tmp_path / "executed", next(tmp_path.glob("*.npy"))

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(bomb),)

    np.save(array, np.array([Bomb()], dtype=object), allow_pickle=True)
    ((_, reason),) = store.check()
    assert "damaged" in reason
    assert get(FeatureStore(tmp_path, PLENTY), 7)[1]
    assert not bomb.exists()


# Budget


def test_the_least_recently_used_entries_leave_to_stay_within_the_budget(tmp_path):
    store = FeatureStore(tmp_path, 3 * ENTRY)
    for n in (1, 2, 3):
        get(store, n)
    for n, record in records(tmp_path).items():
        os.utime(record, (100 * n, 100 * n))
    first, filled = get(store, 1)  # now 2 is the one unused for longest
    assert not filled
    get(store, 4)
    assert records(tmp_path).keys() == {1, 3, 4}
    get(store, 5, shape=(3 * 100,))  # as large as the budget
    assert records(tmp_path).keys() == {5}
    np.testing.assert_array_equal(first, np.full(SHAPE, 1))  # still readable by its holder


def test_fits_counts_what_could_be_removed_but_never_exceeds_the_budget(tmp_path):
    store = FeatureStore(tmp_path, 1000)
    get(store, 1)
    assert store.fits(1000)  # entry 1 would make room
    assert not store.fits(1001)
    assert not FeatureStore(tmp_path, 1 << 60).fits(1 << 59)  # no disk has that


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot claim blocks")
def test_disk_blocks_are_allocated_before_they_are_filled(store, tmp_path):
    floats = 1 << 18

    def fill(out):
        # A full disk must fail before: a write to a mapped block that cannot be had kills.
        assert next(tmp_path.glob("*.partial-*")).stat().st_blocks * 512 >= 4 * floats

    store.get({"n": 1}, (floats,), "float32", fill)


# Other processes


def test_two_processes_at_once_compute_an_entry_once(tmp_path):
    others = [start_other(tmp_path, "7", before="time.sleep(0.5)") for _ in range(2)]
    assert [other.communicate()[0] for other in others] == ["7\n", "7\n"]
    assert (tmp_path / "fills.txt").read_text() == "7\n"


def test_a_process_that_waits_for_another_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_WAIT_NOTICE_S", 0.05)
    at_work, done, said = threading.Event(), threading.Event(), []

    def fill(out):
        at_work.set()
        done.wait(10)
        out[:] = 1

    def say(line):
        said.append(line)
        done.set()

    store = FeatureStore(tmp_path, PLENTY)
    thread = threading.Thread(target=store.get, args=({"n": 1}, SHAPE, "float32", fill))
    thread.start()
    at_work.wait(10)
    _, filled = get(FeatureStore(tmp_path, PLENTY, say), 1)
    thread.join()
    assert not filled
    assert "waiting for another process" in said[0]


def test_what_a_writer_killed_while_filling_leaves_is_reported_and_replaced(tmp_path, said):
    other = start_other(tmp_path, "7", before="os.kill(os.getpid(), 9)")
    other.communicate()
    assert other.returncode == -signal.SIGKILL
    store = FeatureStore(tmp_path, PLENTY, said.append)
    ((_, reason),) = store.check()
    assert "half-written" in reason
    get(store, 7, shape=(100,))
    assert said == []  # the lock ended with the process: nobody waited
    assert not list(tmp_path.glob("*.partial-*"))


def test_files_of_processes_that_are_gone_go_and_those_of_processes_at_work_stay(tmp_path, store):
    # Process numbers mean nothing: they are reused, and may be of another container or host.
    gone = [tmp_path / f"aaaa.partial-{os.getpid()}", tmp_path / "cccc.npy"]
    at_work = [tmp_path / "dddd.partial-999999999", tmp_path / "dddd.npy"]
    for path in (*gone, *at_work):
        path.write_bytes(bytes(100))
    with FileLock(tmp_path / "dddd.lock"):
        get(store, 1)
        assert {name for name, _ in store.check()} == set()
    assert [path.exists() for path in (*gone, *at_work)] == [False, False, True, True]


def test_processes_that_displace_each_others_entries_still_get_their_own(tmp_path):
    floats = 1 << 20  # 4 MB: its checksum takes long enough for the other process to come between
    others = [
        start_other(tmp_path, ",".join(map(str, range(first, first + 40))), 6 << 20, floats)
        for first in (100, 200)
    ]
    ends = [(other.communicate()[0].count("\n"), other.returncode) for other in others]
    assert ends == [(40, 0), (40, 0)]
