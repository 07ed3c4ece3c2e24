"""Nothing is lost: workers killed at random instants, and several at once on one study."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nutclf.config import OBJECTIVES, Recipe, SearchSpace, StudyConfig
from nutclf.search.claims import MAX_RETRIES, RETRIES
from nutclf.search.trial import RUN_ID
from nutclf.track.runs import STATUS
from nutclf.track.store import Store

REPO = Path(__file__).parents[2]
N_KILLS, N_TRIALS, LANES = 20, 20, 2
CONFIG = StudyConfig(
    "kills",
    "mobilenetv2-drawn",
    SearchSpace(n_unfrozen=(0, 4), epochs=(1, 2), lr_schedule=("constant",)),
    OBJECTIVES["valid"],
    baseline=Recipe(epochs=1, lr_schedule="constant"),
)


def work(data: str, folder: str, n_trials: int) -> None:
    """What a sweep's worker does, on a small network; a line a trial goes to a file."""
    from nutclf.data.source import resolve
    from nutclf.process import hear_signals_once, quiet, seed_everything
    from nutclf.search.places import Places
    from nutclf.search.session import Session

    hear_signals_once()
    quiet()
    seed_everything(CONFIG.seed)
    root = Path(folder)
    source = resolve(data, environ={}, workdir=root)
    places = Places(Store.at(root / "store", {}), root / "features", 10**9)

    def say(line: str) -> None:
        with (root / f"{os.getpid()}.log").open("a") as log:
            log.write(line + "\n")

    Session(CONFIG, source, places, say).work(n_trials)


# Imports once, and forks for each worker: TensorFlow takes five seconds to import.
_PARENT = """
import json, os, sys, traceback
import keras, mlflow.keras, optuna, seaborn, sklearn.metrics, tensorflow
from tests.search.test_kills import work
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(*json.loads(line))
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    print(pid, flush=True)
    sys.stdin.readline()
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Lane:
    """One worker after another: `start`, then `end`, which gives the exit code."""

    def __init__(self, arguments: list, errors: Path):
        self._job, self._errors = json.dumps(arguments), errors.open("a")
        self._parent = subprocess.Popen(
            [sys.executable, "-c", _PARENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=REPO,
            env=os.environ | {"PYTHONPATH": str(REPO)},
        )

    def start(self) -> None:
        self._say(self._job)
        self._pid = int(self._parent.stdout.readline())

    def end(self, number: signal.Signals | None = None) -> int:
        """Sends a signal, if one is given, and waits."""
        if number is not None:
            os.kill(self._pid, number)  # its parent has not waited for it: the number is its own
        self._say("wait")
        return int(self._parent.stdout.readline())

    def close(self) -> None:
        self._parent.communicate()
        self._errors.close()

    def _say(self, line: str) -> None:
        self._parent.stdin.write(line + "\n")
        self._parent.stdin.flush()


@pytest.fixture
def lanes(nuts, tmp_path):
    """Opens lanes on one study: `lanes(count, n_trials)`."""
    opened = []

    def open_lanes(count, n_trials):
        arguments = [str(nuts), str(tmp_path), n_trials]
        opened.extend(Lane(arguments, tmp_path / "errors.txt") for _ in range(count))
        return opened

    yield open_lanes
    for lane in opened:
        lane.close()


def check_records(folder: Path, n_trials: int) -> list[optuna.trial.FrozenTrial]:
    """Holds Optuna's records, MLflow's and the artifacts against each other."""
    store = Store.at(folder / "store", {})
    trials = optuna.load_study(study_name=CONFIG.name, storage=store.optuna_url).get_trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == n_trials
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL,
                                                 TrialState.PRUNED, TrialState.WAITING}  # fmt: skip
    assert len({json.dumps(trial.params) for trial in complete}) == n_trials
    client = store.client()
    runs = client.search_runs([store.experiment_id("nutclf")], max_results=1000)
    assert "RUNNING" not in {run.info.status for run in runs}
    states = {trial.number: trial.state.name for trial in trials}
    for run in runs:
        if run.data.tags["kind"] == "trial":
            state = states[int(run.data.tags["trial_number"])]
            assert (run.info.status, run.data.tags["trial_state"]) == (STATUS[state], state)
    for trial in complete:
        run = client.get_run(trial.user_attrs[RUN_ID])
        assert run.data.metrics["best_valid_loss"] == trial.value
        names = {f.path for f in client.list_artifacts(run.info.run_id, "evaluation")}
        assert "evaluation/predictions_valid.csv" in names
        assert run.outputs.model_outputs
    return trials


@pytest.mark.slow
def test_workers_killed_at_twenty_random_instants_lose_nothing(lanes, tmp_path):
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")  # shown when the test fails
    draw = random.Random(seed)
    both = lanes(LANES, N_TRIALS)
    for _ in range(N_KILLS // LANES):
        for lane in both:
            lane.start()
        waits = sorted(draw.uniform(0, 9) for _ in both)
        time.sleep(waits[0])
        codes = [both[0].end(signal.SIGKILL)]
        time.sleep(waits[1] - waits[0])
        codes.append(both[1].end(signal.SIGKILL))
        assert set(codes) <= {-signal.SIGKILL, 0}, (tmp_path / "errors.txt").read_text()
    both[0].start()
    assert both[0].end() == 0, (tmp_path / "errors.txt").read_text()
    trials = check_records(tmp_path, N_TRIALS)
    assert max(trial.user_attrs.get(RETRIES, 0) for trial in trials) <= MAX_RETRIES
    assert not list((tmp_path / "features").glob("*.partial-*"))


@pytest.mark.slow
def test_three_at_once_bring_exactly_what_was_asked_for(lanes, tmp_path):
    crowd = lanes(3, 12)
    for lane in crowd:
        lane.start()
    assert [lane.end() for lane in crowd] == [0, 0, 0], (tmp_path / "errors.txt").read_text()
    trials = check_records(tmp_path, 12)
    assert len(trials) == 12 + sum(trial.state == TrialState.PRUNED for trial in trials)
    assert len({trial.user_attrs["worker"] for trial in trials}) == 3
    spoken = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert spoken.count("from 3 seeds") == 1
