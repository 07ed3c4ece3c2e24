"""Workers are real processes here: they compute, are killed, and end with their driver."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nutclf.config import OBJECTIVES, Recipe, SearchSpace, StudyConfig
from nutclf.search.engines import LocalProcesses, Stopped, ThisProcess, WorkerDied
from nutclf.train.jobs import AssembleJob, FitJob

REPO = Path(__file__).parents[2]
RECIPE = Recipe(n_unfrozen=0, epochs=2, lr_schedule="constant", batch_size=8)
CONFIG = StudyConfig(
    "engines",
    "mobilenetv2",
    SearchSpace(n_unfrozen=(0, 4)),
    OBJECTIVES["valid"],
    n_views=1,
    image_size=32,
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def setting(source, features):
    from nutclf.search.driver import prepare

    return prepare(CONFIG, source, None, features, print, "random")[0]


@pytest.fixture
def engine(said):
    engines = []

    def engine(n):
        engines.append(LocalProcesses(n, said.append))
        return engines[-1]

    yield engine
    for one in engines:
        one.close()


@pytest.fixture
def said():
    return []


def goes_on(epoch, figures):
    return True


def results(engine, futures):
    while not all(future.done() for future in futures):
        engine.wait()
    return [future.result() for future in futures]


def children(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in found
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


def test_a_worker_gives_what_this_process_gives_and_tells_its_epochs(engine, setting):
    job, heard, here = FitJob(setting, RECIPE, seed=0), [], []
    local = engine(1)
    future = local.submit(job, lambda epoch, figures: heard.append((epoch, figures)) or True)
    (there,) = results(local, [future])
    alone = ThisProcess().submit(job, lambda *epoch: here.append(epoch) or True).result()
    np.testing.assert_allclose(there.valid, alone.valid, atol=1e-6)
    assert there.history.epochs == [figures for _, figures in here]
    assert heard == here[: len(heard)]
    (assembled,) = results(local, [local.submit(AssembleJob(setting, there), goes_on)])
    np.testing.assert_allclose(assembled.y_prob, there.valid[0], atol=1e-4)


def test_a_fit_that_may_be_stopped_waits_for_its_word(engine, setting):
    job = FitJob(setting, replace(RECIPE, epochs=5000), seed=0, may_stop=True)
    local = engine(1)
    future = local.submit(job, lambda epoch, figures: epoch < 3)
    while not future.done():
        local.wait()
    assert isinstance(future.exception(), Stopped)


def test_one_of_three_workers_killed_costs_one_fit_that_is_run_again(engine, setting, said):
    local, epochs = engine(3), []

    def on_epoch(number):
        def heard(epoch, figures):
            epochs.append((number, epoch))
            if (number, epoch) == (1, 2) and epochs.count((1, 2)) == 1:
                os.kill(local_pids[1], signal.SIGKILL)
            return True

        return heard

    recipe = replace(RECIPE, epochs=4)
    jobs = [FitJob(setting, recipe, seed, may_stop=True) for seed in range(3)]
    local_pids = sorted(children(os.getpid()))
    assert len(local_pids) == 3
    futures = [local.submit(job, on_epoch(number)) for number, job in enumerate(jobs)]
    done = results(local, futures)
    assert [len(result.history.epochs) for result in done] == [4, 4, 4]
    assert said == ["a worker process was killed, or crashed; its fit is run again"]
    again = [number for number in range(3) if epochs.count((number, 1)) > 1]
    assert len(again) == 1
    assert len(children(os.getpid())) == 3
    expected = ThisProcess().submit(jobs[again[0]], goes_on).result().valid
    np.testing.assert_allclose(done[again[0]].valid, expected, atol=1e-6)


def test_a_fit_that_kills_each_of_its_workers_fails(engine, setting):
    local = engine(1)
    job = FitJob(setting, replace(RECIPE, epochs=5000), seed=0, may_stop=True)

    def kill(epoch, figures):
        os.kill(children(os.getpid())[0], signal.SIGKILL)
        return True

    future = local.submit(job, kill)
    while not future.done():
        local.wait()
    assert isinstance(future.exception(), WorkerDied)
    assert "3 times" in str(future.exception())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_is_left_soon_after_its_driver(number, tmp_path):
    program = (
        "import time\n"
        "from nutclf.process import hear_signals_once\n"
        "from nutclf.search.engines import LocalProcesses\n"
        "if __name__ == '__main__':\n"
        "    hear_signals_once()\n"
        "    engine = LocalProcesses(2, print)\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        engine.close()\n"
    )
    (tmp_path / "program.py").write_text(program)
    driver = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        env=os.environ | {"PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with driver:
        assert driver.stdout.readline() == "ready\n"
        workers = children(driver.pid)
        assert len(workers) == 2
        driver.send_signal(number)
        # At once, but for what holds Python meanwhile: they may be importing TensorFlow.
        deadline = time.monotonic() + 60
        while any(map(alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(alive, workers))
