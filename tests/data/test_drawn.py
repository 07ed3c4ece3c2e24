import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nutclf.config import SPLITS
from nutclf.data import drawn
from nutclf.data.folder import scan
from nutclf.data.reader import read_image
from nutclf.errors import UserError

FEW = {"train": 2, "valid": 1, "test": 1}
N_FEW = 10 * sum(FEW.values())
# What another process runs on the same few pictures; IN_BETWEEN stands for a line of its own.
PROCESS = f"""
import os, sys
from pathlib import Path
from nutclf.data import drawn
drawn.COUNTS = {FEW}
calls, draw = [], drawn.draw
def counted(*arguments):
    calls.append(arguments)
    IN_BETWEEN
    return draw(*arguments)
drawn.draw = counted
folder = drawn.ensure(Path(sys.argv[1]))
print(folder, len(calls), sep="\\n")
"""


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(drawn, "COUNTS", FEW)


@pytest.fixture(scope="module")
def pictures():
    """One picture for each of two values of every argument, by (label, split, index, seed)."""
    return {
        key: drawn.draw(*key)
        for key in itertools.product((0, 9), ("train", "test"), (0, 1), (0, 1))
    }


def start(parent, in_between="pass"):
    command = [sys.executable, "-c", PROCESS.replace("IN_BETWEEN", in_between), str(parent)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def test_the_same_arguments_give_the_same_picture(pictures):
    for key, picture in pictures.items():
        np.testing.assert_array_equal(drawn.draw(*key), picture)


def test_label_split_index_and_seed_each_change_the_picture(pictures):
    assert len({picture.tobytes() for picture in pictures.values()}) == 16


@pytest.mark.parametrize("label", range(10))
def test_every_kind_is_drawn_in_many_poses_without_a_warning(label):
    for index in range(8):
        picture = drawn.draw(label, "valid", index, 7)
        assert picture.shape == (drawn.SIDE, drawn.SIDE, 3) == (128, 128, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 5


def test_the_names_are_those_of_the_photographs_in_their_order():
    assert drawn.CLASSES == (
        "almonds",
        "brazil nuts",
        "cashews",
        "coconut",
        "hazelnuts",
        "macadamia",
        "pecans",
        "pine nuts",
        "pistachios",
        "walnuts",
    )
    assert tuple(sorted(drawn.CLASSES)) == drawn.CLASSES


def test_ensure_writes_what_draw_draws(tmp_path):
    root = drawn.ensure(tmp_path / "made" / "on the way", seed=3)
    assert root.name.startswith("drawn-3-")
    for label, split in itertools.product((0, 6), SPLITS):
        path = root / split / drawn.CLASSES[label] / "000.png"
        np.testing.assert_array_equal(read_image(path, drawn.SIDE), drawn.draw(label, split, 0, 3))


def test_the_folder_is_a_whole_data_set_and_no_picture_is_in_it_twice(tmp_path):
    folder = scan(drawn.ensure(tmp_path))
    assert folder.classes == drawn.CLASSES
    assert folder.notes == ()
    sizes = folder.files.groupby(["split", "label"]).size()
    assert {(split, n) for (split, _), n in sizes.items()} == set(FEW.items())
    assert folder.files["sha256"].nunique() == N_FEW


def test_a_second_call_draws_nothing(tmp_path, monkeypatch):
    first = drawn.ensure(tmp_path)
    monkeypatch.setattr(drawn, "draw", lambda *_: pytest.fail("it drew again"))
    assert drawn.ensure(tmp_path) == first


def test_other_seeds_counts_and_code_go_to_other_folders(tmp_path, monkeypatch):
    folders = [drawn.ensure(tmp_path, 0), drawn.ensure(tmp_path, 1)]
    changed = tmp_path / "drawn.py"
    changed.write_bytes(Path(drawn.__file__).read_bytes() + b"# another line")
    with monkeypatch.context() as patched:
        patched.setattr(drawn, "__file__", str(changed))
        folders.append(drawn.ensure(tmp_path, 0))
    monkeypatch.setattr(drawn, "COUNTS", FEW | {"train": 3})
    folders.append(drawn.ensure(tmp_path, 0))
    assert len(set(folders)) == 4
    assert len(files_of(folders[3])) == N_FEW + 10


def test_a_killed_process_leaves_nothing_that_passes_for_whole(tmp_path):
    with start(tmp_path, "if len(calls) > 15: os._exit(9)") as killed:
        assert killed.wait(60) == 9
    assert not list(tmp_path.glob("drawn-*"))
    unfinished = next(tmp_path.glob(".drawn-*.unfinished"))
    (unfinished / "train" / "left over.png").write_bytes(b"half a picture")
    assert len(files_of(drawn.ensure(tmp_path))) == N_FEW
    assert not list(tmp_path.glob(".drawn-*.unfinished"))


def test_an_error_while_drawing_leaves_nothing_that_passes_for_whole(tmp_path, monkeypatch):
    def disk_full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(drawn, "draw", disk_full)
        with pytest.raises(UserError, match="No space left on device"):
            drawn.ensure(tmp_path)
    assert not list(tmp_path.glob("drawn-*"))
    assert len(files_of(drawn.ensure(tmp_path))) == N_FEW


def test_processes_that_ask_at_once_draw_it_once(tmp_path):
    processes = [start(tmp_path) for _ in range(3)]
    answers = [process.communicate(timeout=60)[0].split("\n") for process in processes]
    assert {folder for folder, *_ in answers} == {str(drawn.ensure(tmp_path))}
    assert sorted(int(calls) for _, calls, *_ in answers) == [0, 0, N_FEW]
    assert len(files_of(drawn.ensure(tmp_path))) == N_FEW


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(UserError, match="data"):
        drawn.ensure(tmp_path / "data")
