"""Worker processes: real ones, that end, crash, and are stopped."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nutclf.errors import SweepFailed, UserError
from nutclf.search.workers import run_workers

REPO = Path(__file__).parents[2]


def note(folder: Path, text: str = "") -> int:
    """Leaves a file named for this process; returns how many there are."""
    (folder / str(os.getpid())).write_text(text)
    return len(list(folder.iterdir()))


def third_time_done(folder):
    return note(folder) >= 3


def crash_first(folder):
    note(folder)
    with contextlib.suppress(FileExistsError):
        (folder / "first").touch(exist_ok=False)
        os._exit(9)
    return True


def crash_always(folder):
    note(folder)
    os._exit(9)


def refuse(folder):
    raise UserError("no such folder: 'nuts'.")


def threads(folder):
    note(folder, os.environ["TF_NUM_INTRAOP_THREADS"])
    return True


def wait_for_ever(folder):
    note(folder)
    try:
        time.sleep(60)
    finally:
        (folder / f"{os.getpid()}-stopped").touch()


def test_a_process_that_is_not_done_is_replaced_by_a_fresh_one(tmp_path):
    run_workers(1, third_time_done, (tmp_path,), print)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_crash_is_said_and_the_work_goes_on(tmp_path):
    said = []
    run_workers(2, crash_first, (tmp_path,), said.append)
    assert len(list(tmp_path.iterdir())) >= 2
    assert said == ["a worker crashed (exit code 9); its trial is run again"]


def test_workers_that_always_crash_come_to_an_end(tmp_path):
    with pytest.raises(SweepFailed, match="3 workers crashed one after another"):
        run_workers(2, crash_always, (tmp_path,), lambda line: None)
    assert len(list(tmp_path.iterdir())) >= 3


def test_what_a_person_must_hear_arrives(tmp_path):
    with pytest.raises(UserError, match="no such folder: 'nuts'"):
        run_workers(2, refuse, (tmp_path,), print)


def test_processors_are_divided(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "")
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS")
    run_workers(2, threads, (tmp_path,), print)
    each = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {file.read_text() for file in tmp_path.iterdir()} == {str(each)}
    assert "TF_NUM_INTRAOP_THREADS" not in os.environ


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_workers_of_a_stopped_sweep_stop_in_order(tmp_path, number):
    program = (
        "import pathlib, tests.search.test_workers as t\n"
        "from nutclf.search.signals import hear_signals_once\n"
        "if __name__ == '__main__':\n"
        "    hear_signals_once()\n"
        f"    t.run_workers(2, t.wait_for_ever, (pathlib.Path({str(tmp_path)!r}),), print)\n"
    )
    script = tmp_path.parent / "program.py"
    script.write_text(program)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(REPO)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    parent.send_signal(number)
    assert parent.wait(30) in (1, 128 + number, -number)
    stopped = {file.name for file in tmp_path.iterdir() if file.name.endswith("-stopped")}
    assert len(stopped) == 2
