"""Nothing is lost: drivers killed at random instants, a second driver, a server that goes away."""

import json
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nutclf.cli import says_that_server_is_away
from nutclf.config import OBJECTIVES, Recipe, SearchSpace, StudyConfig
from nutclf.errors import UserError
from nutclf.search.study import KILLS, MAX_KILLS
from nutclf.search.trial import RUN_ID
from nutclf.track.runs import STATUS
from nutclf.track.store import Store

REPO = Path(__file__).parents[2]
N_KILLS, N_TRIALS = 4, 5
CONFIG = StudyConfig(
    "kills",
    "mobilenetv2",
    SearchSpace(n_unfrozen=(0, 4), epochs=(1, 2), lr_schedule=("constant",)),
    OBJECTIVES["valid"],
    baseline=Recipe(epochs=1, lr_schedule="constant"),
    image_size=32,
)
pytestmark = pytest.mark.slow


def sweep(data: str, folder: str, n_trials: int, workers: int = 1) -> None:
    """What `make sweep` does, on a small network, without promotion."""
    from nutclf import process
    from nutclf.data.source import resolve
    from nutclf.search import driver
    from nutclf.search.engines import LocalProcesses
    from nutclf.train.feature_store import FeatureStore

    process.hear_signals_once()
    process.quiet()
    root = Path(folder)
    source = resolve(data, environ={}, workdir=root)
    store, features = Store.at(root / "store", {}), FeatureStore(root / "features", 10**9)
    engine = LocalProcesses(workers, print)
    try:
        driver.sweep(
            CONFIG, source, store, features, engine, print, n_trials=n_trials, weights="random"
        )
    finally:
        engine.close()


_PROGRAM = """
import json, sys
from tests.search.test_kills import sweep
if __name__ == "__main__":
    sweep(*json.loads(sys.argv[1]))
"""


@pytest.fixture
def start(nuts, tmp_path):
    """Starts a driver in a process of its own: `start(n_trials, workers)`."""
    program, started = tmp_path / "program.py", []
    program.write_text(_PROGRAM)

    def start(n_trials, workers=1):
        arguments = json.dumps([str(nuts), str(tmp_path), n_trials, workers])
        process = subprocess.Popen(
            [sys.executable, str(program), arguments],
            env=os.environ | {"PYTHONPATH": str(REPO)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def check_records(folder: Path, n_trials: int) -> list[optuna.trial.FrozenTrial]:
    """Compares Optuna's records, MLflow's and the artifacts."""
    store = Store.at(folder / "store", {})
    trials = optuna.load_study(study_name=CONFIG.name, storage=store.optuna_url).get_trials()
    states = [trial.state for trial in trials]
    assert states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) == n_trials
    assert TrialState.RUNNING not in states
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len({json.dumps(trial.params) for trial in complete}) == len(complete)
    client = store.client()
    runs = client.search_runs([store.experiment_id("nutclf")], max_results=1000)
    assert "RUNNING" not in {run.info.status for run in runs}
    for run in runs:
        if run.data.tags["kind"] == "trial":
            state = trials[int(run.data.tags["trial_number"])].state.name
            assert (run.info.status, run.data.tags["trial_state"]) == (STATUS[state], state)
    for trial in complete:
        run = client.get_run(trial.user_attrs[RUN_ID])
        assert run.data.metrics["best_valid_loss"] == trial.value
        names = {f.path for f in client.list_artifacts(run.info.run_id, "evaluation")}
        assert "evaluation/predictions_valid.csv" in names
        assert run.outputs.model_outputs
    return trials


def test_drivers_killed_at_random_instants_lose_nothing(start, tmp_path):
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")  # shown when the test fails
    draw = random.Random(seed)
    for _ in range(N_KILLS):
        driver = start(N_TRIALS)
        time.sleep(draw.uniform(0, 16))
        driver.kill()
        driver.communicate()
    said, _ = (last := start(N_TRIALS, workers=2)).communicate()
    assert last.returncode == 0, said
    trials = check_records(tmp_path, N_TRIALS)
    assert max(trial.user_attrs.get(KILLS, 0) for trial in trials) <= MAX_KILLS
    time.sleep(1)
    assert not list((tmp_path / "features").glob("*.partial-*"))


def test_a_second_sweep_is_refused_and_the_first_one_goes_on(start, tmp_path):
    first = start(8)
    for line in first.stdout:
        if line.startswith("[1/8]"):
            break
    second = start(8)
    said, _ = second.communicate()
    assert second.returncode == 1
    assert f"pid {first.pid}" in said
    assert all(word in said for word in ("since 20", "WORKERS="))
    assert first.wait(120) == 0
    assert len(check_records(tmp_path, 8)) == 8


def test_a_sweep_whose_server_stays_away_ends_and_the_same_command_goes_on(
    server, remote, source, features
):
    from nutclf.search import driver
    from nutclf.search.engines import ThisProcess

    there = ExitStack()

    def sweep(say):
        engine = ThisProcess()
        driver.sweep(CONFIG, source, remote, features, engine, say, n_trials=3, weights="random")

    with there:
        there.enter_context(server())
        with pytest.raises(Exception) as ended:
            sweep(lambda line: there.close())  # from the first result on, nobody answers
        assert says_that_server_is_away(ended.value)
    with server():
        sweep(lambda line: None)
        client = remote.client()
        runs = client.search_runs([remote.experiment_id("nutclf")])
        ended = {(run.data.tags["kind"], run.info.status) for run in runs}
        assert ended <= {(kind, "FINISHED") for kind in ("study", "probe", "trial", "seed")} | {
            ("probe", "FAILED"),
            ("trial", "FAILED"),
            ("seed", "FAILED"),
        }
        trials = [run for run in runs if run.info.status == "FINISHED"]
        assert sum(run.data.tags["kind"] == "trial" for run in trials) == 3
    with pytest.raises(UserError, match="does not answer"):
        sweep(lambda line: None)
