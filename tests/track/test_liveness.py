"""Who is at work on a store: told by locks that end with their process, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nutclf.track.liveness import alive, hold, workers

REPO = Path(__file__).parents[2]
# Says its name; starts a program that outlives it when told to; ends with its input.
WORKER = """
import subprocess, sys
from pathlib import Path
from nutclf.track.liveness import hold
with hold(Path(sys.argv[1])) as worker:
    print(worker, flush=True)
    for line in sys.stdin:
        if line == "start\\n":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            print(child.pid, flush=True)
"""


class Process:
    """A worker in a process of its own."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPO,
        )
        self.name = self.process.stdout.readline().strip()

    def ask(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def end(self):
        self.process.communicate(timeout=30)

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(30)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path):
    started = []

    def start():
        started.append(Process(tmp_path))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.kill()


def lock_files(folder):
    return {file.name.removesuffix(".lock") for file in (folder / "workers").iterdir()}


def test_a_process_is_alive_until_it_ends_in_good_order(tmp_path, start):
    worker = start()
    assert alive(tmp_path, worker.name)
    worker.end()
    assert not alive(tmp_path, worker.name)
    assert lock_files(tmp_path) == set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_is_not_alive(tmp_path, start, number):
    worker, other = start(), start()
    worker.kill(number)
    assert not alive(tmp_path, worker.name)
    assert alive(tmp_path, other.name)
    assert workers(tmp_path) == {other.name}


def test_a_program_that_a_killed_process_started_does_not_keep_it_alive(tmp_path, start):
    worker = start()
    child = int(worker.ask("start"))
    worker.kill()
    try:
        os.kill(child, 0)  # it is there
        assert not alive(tmp_path, worker.name)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_process_sees_itself_and_is_asked_without_harm(tmp_path):
    with hold(tmp_path) as worker:
        assert [alive(tmp_path, worker) for _ in range(3)] == [True] * 3
    assert not alive(tmp_path, worker)


def test_an_error_in_the_block_ends_it_too(tmp_path):
    with pytest.raises(ValueError, match="broken"), hold(tmp_path) as worker:
        raise ValueError("broken")
    assert not alive(tmp_path, worker)
    assert lock_files(tmp_path) == set()


def test_a_name_is_never_used_again(tmp_path):
    names = set()
    for _ in range(3):
        with hold(tmp_path) as worker:
            names.add(worker)
    assert len(names) == 3


def test_who_was_never_there_is_not_alive_and_asking_makes_no_file(tmp_path):
    assert not alive(tmp_path, "nobody")
    assert workers(tmp_path) == set()
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_dead_go_when_the_next_comes_and_those_of_the_living_stay(tmp_path, start):
    dead, living = start(), start()
    dead.kill()
    assert lock_files(tmp_path) == {dead.name, living.name}
    with hold(tmp_path) as worker:
        assert lock_files(tmp_path) == {living.name, worker}
        assert workers(tmp_path) == {living.name, worker}
    assert not alive(tmp_path, dead.name)
