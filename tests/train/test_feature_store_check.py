"""What is not whole in the feature store is found without being used, and made again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from nutclf.train.feature_store import FeatureStore

REPO = Path(__file__).parents[2]
KILLED_WHILE_FILLING = """
import os, signal, sys
from pathlib import Path
from nutclf.train.store import FeatureStore
FeatureStore(Path(sys.argv[1]), 10**9).get(
    {"n": 7}, (9,), "float32", lambda out: os.kill(os.getpid(), signal.SIGKILL)
)
"""


@pytest.fixture
def made(tmp_path):
    """Three whole entries: file name of each."""
    store = FeatureStore(tmp_path, 10**9)
    for n in range(3):
        store.get({"n": n}, (5,), "float32", lambda out, n=n: out.fill(n))
    return sorted(file.stem for file in tmp_path.glob("*.npy"))


def check(folder):
    return FeatureStore(folder, 0).check()


def files(folder):
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def truncate(folder, name):
    with (folder / f"{name}.npy").open("r+b") as file:
        file.truncate(130)


def flip(folder, name):
    array = folder / f"{name}.npy"
    array.write_bytes(array.read_bytes()[:-1] + b"\xff")


def lose_array(folder, name):
    (folder / f"{name}.npy").unlink()


def lose_record(folder, name):
    (folder / f"{name}.json").unlink()


def empty_record(folder, name):
    (folder / f"{name}.json").write_text("")


def leave_partial(folder, name):
    (folder / f"{name}.partial-1").write_bytes(b"half")


def leave_partial_record(folder, name):
    (folder / f"{name}.json.partial-1").write_bytes(b"{")


DAMAGES = (
    truncate,
    flip,
    lose_array,
    lose_record,
    empty_record,
    leave_partial,
    leave_partial_record,
)


def test_whole_entries_are_healthy_and_looking_does_not_count_as_use(made, tmp_path):
    before = files(tmp_path)
    assert check(tmp_path) == []
    assert files(tmp_path) == before


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_one_broken_entry_is_named_and_goes_and_the_others_stay(made, tmp_path, damage):
    damage(tmp_path, made[1])
    before = files(tmp_path)
    ((name, reason),) = check(tmp_path)
    assert name == made[1]
    assert reason
    assert files(tmp_path) == before, "to look changes nothing"
    FeatureStore(tmp_path, 0).discard(name)
    assert check(tmp_path) == []
    kept = {file.stem for file in tmp_path.glob("*.npy")}
    assert {made[0], made[2]} <= kept
    assert not list(tmp_path.glob("*partial*"))


def test_a_removed_entry_is_made_again(made, tmp_path):
    flip(tmp_path, made[0])
    n = json.loads((tmp_path / f"{made[0]}.json").read_text())["key"]["n"]
    store = FeatureStore(tmp_path, 10**9)
    store.discard(made[0])
    again = store.get({"n": n}, (5,), "float32", lambda out: out.fill(n))
    assert (again == n).all()
    assert check(tmp_path) == []


def test_to_discard_what_is_whole_removes_nothing(made, tmp_path):
    FeatureStore(tmp_path, 0).discard(made[0])
    assert (tmp_path / f"{made[0]}.npy").exists()


def test_what_a_killed_process_left_half_written_is_found(made, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_FILLING, str(tmp_path)], check=False, cwd=REPO
    )
    assert done.returncode == -signal.SIGKILL
    ((name, reason),) = check(tmp_path)
    assert name not in made
    assert "half-written" in reason
    FeatureStore(tmp_path, 0).discard(name)
    assert {file.stem for file in tmp_path.glob("*.npy")} == set(made)


def test_what_is_being_made_is_passed_over(made, tmp_path):
    leave_partial(tmp_path, made[0])
    with FileLock(tmp_path / f"{made[0]}.lock"):
        assert check(tmp_path) == []
    assert len(check(tmp_path)) == 1


def test_a_pickle_in_the_place_of_an_array_is_damage_and_is_not_executed(made, tmp_path):
    """NumPy's own format can hold one."""
    bomb, array_file = tmp_path / "executed", tmp_path / f"{made[0]}.npy"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(bomb),)

    np.save(array_file, np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(FileExistsError), array_file.open("rb") as file:
        bomb.mkdir()  # so that the bomb is heard: it works where pickles are allowed
        np.load(file, allow_pickle=True)
    bomb.rmdir()
    ((name, reason),) = check(tmp_path)
    assert name == made[0]
    assert "damaged" in reason
    n = json.loads((tmp_path / f"{made[0]}.json").read_text())["key"]["n"]
    filled = []
    FeatureStore(tmp_path, 10**9).get({"n": n}, (5,), "float32", filled.append)
    assert filled, "made again"
    assert not bomb.exists()
