"""A bad night on many machines: a Ray cluster of several nodes, PostgreSQL and an MLflow server.

All of them are real, on this machine; each test does one thing to one of them in the middle of a
sweep. `make test-cluster` runs it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from glob import glob
from pathlib import Path

import pytest

from nutclf.track.store import Store

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # Ray's own are many
]
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray is imported
PASSWORD = "secret"
N_TRIALS = 2
MEMORY = 100 * 2**20  # of a node's object store
STUDY = '''"""Two folds and the whole, a second each."""

from nutclf.config import PLAIN, Recipe, SearchSpace, StudyConfig

STUDY = StudyConfig(
    name="folded",
    backbone="mobilenet",
    space=SearchSpace(n_unfrozen=(0, 3), epochs=(20, 20), lr_schedule=("constant",)),
    baseline=Recipe(n_unfrozen=0, epochs=20, lr_schedule="constant"),
    n_views=1,
    n_folds=2,
    image_size=32,
    tta=(PLAIN.views,),
    probes=(),
    blend=(),
)
'''


class Postgres:
    """A PostgreSQL of the test's own."""

    def __init__(self, folder: Path, port: int):
        self._folder, self.port = folder, port
        found = shutil.which("initdb") or next(iter(glob("/usr/lib/postgresql/*/bin/initdb")), None)
        if found is None:
            pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
        self._programs = Path(found).resolve().parent
        # The server refuses to be root's.
        self._as = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self._as:
            shutil.chown(folder, "postgres")
        password = folder / "password"
        password.write_text(PASSWORD)
        self._run("initdb", "-U", "nutclf", "-A", "scram-sha-256", f"--pwfile={password}")
        self.control("start")

    def control(self, verb: str) -> None:
        """start, stop or restart."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-w", "-m", "fast", "-l", log, "-o", options, verb)

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql+psycopg://nutclf:{password}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        data = ["-D", str(self._folder / "data")]
        command = [*self._as, str(self._programs / program), *data, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder)


@pytest.fixture(scope="session")
def postgres(free_port):
    import psycopg

    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # where the user `postgres` may look, too
    server = Postgres(folder, free_port())
    try:
        plain = server.url("postgres").replace("+psycopg", "")
        with closing(psycopg.connect(plain, autocommit=True)) as connection:
            for name in ("optuna", "mlflow"):
                connection.execute(f"CREATE DATABASE {name}")
        yield server
    finally:
        server.control("stop")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def mlflow_server(server_at, postgres, tmp_path_factory, free_port):
    """An MLflow server that runs, and can be stopped: `mlflow_server.away()`, `.back()`."""
    folder = tmp_path_factory.mktemp("mlflow")
    server = server_at(folder, free_port(), postgres.url("mlflow"))
    there = ExitStack()
    server.away, server.back = there.close, lambda: there.enter_context(server())
    with there:
        server.back()
        yield server


class Nodes:
    """A Ray cluster: a head without processors, and nodes of one each."""

    def __init__(self, folder: Path):
        from ray.cluster_utils import Cluster

        self._folder = folder
        # Ray's own minute is long for a test; a busy machine may not answer for a few seconds.
        health = {
            "health_check_initial_delay_ms": 0,
            "health_check_period_ms": 1000,
            "health_check_timeout_ms": 2000,
            "health_check_failure_threshold": 5,
        }
        head = {"num_cpus": 0, "object_store_memory": MEMORY, "_system_config": health}
        self.cluster = Cluster(True, head_node_args=head | {"include_dashboard": False})
        self.running = {}

    def add(self, name: str, **environ: object) -> None:
        # Data and weights that are set where the tests run, for others of them, are not the node's.
        fixed = {"NUTCLF_DATA": "", "NUTCLF_WEIGHTS": "", "TF_CPP_MIN_LOG_LEVEL": 3}
        variables = fixed | {"NUTCLF_CACHE": self._folder / name} | environ
        self.running[name] = self.cluster.add_node(
            node_name=name,
            num_cpus=1,
            object_store_memory=MEMORY,
            env_vars={key: str(value) for key, value in variables.items()},
        )

    def raylet(self, name: str) -> int:
        (process,) = self.running[name].all_processes["raylet"]
        return process.process.pid

    def remove(self, name: str) -> None:
        """As a power cut does."""
        self.cluster.remove_node(self.running.pop(name), allow_graceful=False)


@pytest.fixture(scope="session")
def nodes(tmp_path_factory):
    pytest.importorskip("ray", reason="needs Ray: `make test-cluster` installs it")
    there = Nodes(tmp_path_factory.mktemp("nodes"))
    there.add("red")
    there.add("blue")
    yield there
    there.cluster.shutdown()


def workers() -> list[int]:
    """Processes of the engine on any node."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if file.read_bytes().startswith(b"ray::_AtNode"):
                found.append(int(file.parent.name))
    return found


class Sweep:
    """A sweep in a process of its own; what it says is read as it comes."""

    def __init__(self, checkout: Path, arguments: list[str], environ: dict[str, str]):
        command = [sys.executable, "-m", "nutclf", "sweep", *map(str, arguments)]
        self.said = ""
        self.process = subprocess.Popen(
            command,
            cwd=checkout,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, pattern: str) -> None:
        for line in self.process.stdout:
            self.said += line
            if re.search(pattern, line):
                return
        raise AssertionError(f"it never said {pattern!r}:\n{self.said}")

    def end(self) -> int:
        self.said += self.process.stdout.read()
        return self.process.wait(60)


@pytest.fixture
def records(postgres, mlflow_server, tmp_path):
    """Where the sweeps of a test put their records."""
    return {
        "NUTCLF_OPTUNA_STORAGE": postgres.url("optuna"),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow_server.port}",
        "NUTCLF_STORE": str(tmp_path / "store"),
        "NUTCLF_CACHE": str(tmp_path / "cache"),
    }


@pytest.fixture
def start(checkout, nuts, nodes, records, cli_environ, request):
    """Starts the sweep of this test's study: `start(*options, **environ)`."""
    (checkout / "experiments" / "folded.py").write_text(STUDY)
    started = []

    def start(*options: object, **environ: object) -> Sweep:
        fixed = ["--study", "folded", "--name", request.node.name, "--weights", "random"]
        fixed += ["--data", nuts, "--trials", N_TRIALS]
        options = options or ("--ray", nodes.cluster.address)
        started.append(Sweep(checkout, [*fixed, *options], cli_environ(**(records | environ))))
        return started[-1]

    yield start
    for sweep in started:
        sweep.process.kill()
        sweep.end()
        sweep.process.stdout.close()


@pytest.fixture
def whole(records, monkeypatch, request):
    """Whether the records are whole, and the champion reloads: `whole(sweep)`.

    Gives each trial's parameters and what it came to.
    """

    def whole(sweep: Sweep, optuna_url=None, tracking=None):
        import mlflow
        import numpy as np
        from optuna.storages import RDBStorage

        from nutclf.search.trial import RUN_ID
        from nutclf.track.runs import STATUS

        assert sweep.end() == 0, sweep.said
        url = records["NUTCLF_OPTUNA_STORAGE"] if optuna_url is None else optuna_url
        storage = RDBStorage(url)
        study = storage.get_study_id_from_name(request.node.name)
        trials = storage.get_all_trials(study)
        storage.remove_session()
        storage.engine.dispose()
        states = [trial.state.name for trial in trials]
        assert states.count("COMPLETE") + states.count("PRUNED") == N_TRIALS
        assert "RUNNING" not in states
        environ = {"MLFLOW_TRACKING_URI": tracking or records["MLFLOW_TRACKING_URI"]}
        store = Store.at(records["NUTCLF_STORE"], environ)
        client, experiment = store.client(), store.experiment_id("nutclf")
        runs = client.search_runs([experiment], f"tags.study_name = '{request.node.name}'")
        assert "RUNNING" not in {run.info.status for run in runs}
        by_id, came_to = {run.info.run_id: run for run in runs}, []
        for trial in trials:
            if RUN_ID in trial.user_attrs:
                run = by_id[trial.user_attrs[RUN_ID]]
                assert run.info.status == STATUS[trial.state.name]
                loss = run.data.metrics.get("best_valid_loss")
                came_to.append((trial.params, trial.values, loss))
        store.use()
        model = mlflow.keras.load_model("models:/nutclf@champion")
        assert model.predict(np.zeros((1, 32, 32, 3), np.uint8), verbose=0).shape == (1, 3)
        return came_to

    return whole


def test_one_worker_of_a_cluster_gives_what_a_local_one_gives(start, whole, nodes, tmp_path):
    url, tracking = (f"sqlite:///{tmp_path}/{name}.db" for name in ("optuna", "mlflow"))
    local = {"NUTCLF_OPTUNA_STORAGE": url, "MLFLOW_TRACKING_URI": tracking}
    # Sums depend on how many threads share them, and a fit on these nodes has one.
    here = start("--workers", 1, **local, TF_NUM_INTRAOP_THREADS=1)
    ours = whole(here, url, tracking)
    there = whole(start("--workers", 1, "--ray", nodes.cluster.address))
    assert len(ours) == N_TRIALS
    assert ours == there


def test_a_worker_killed(start, whole):
    sweep = start()
    sweep.until("trial 0")
    os.kill(workers()[0], signal.SIGKILL)
    whole(sweep)
    assert re.search("a worker on node (red|blue) was lost", sweep.said)


def test_a_node_killed_in_the_middle_of_fits(start, whole, nodes):
    sweep = start()
    sweep.until("trial 0")
    nodes.remove("blue")
    whole(sweep)
    nodes.add("blue")


def test_the_driver_killed_and_the_same_command(start, whole):
    first = start()
    first.until("trial 0")
    refused = start()
    assert refused.end() == 2
    assert f"(pid {first.process.pid})" in refused.said
    first.process.kill()
    first.end()
    whole(start())


def test_a_node_cut_off_that_comes_back(start, whole, nodes):
    sweep = start()
    sweep.until("trial 0")
    raylet = nodes.raylet("blue")
    os.kill(raylet, signal.SIGSTOP)
    time.sleep(20)  # until it is given up
    os.kill(raylet, signal.SIGCONT)  # it hears that it is dead
    whole(sweep)
    nodes.remove("blue")
    nodes.add("blue")


def test_the_mlflow_server_away_for_half_a_minute(start, whole, mlflow_server):
    sweep = start()
    sweep.until("trial 0")
    mlflow_server.away()
    time.sleep(30)
    mlflow_server.back()
    whole(sweep)


def test_postgresql_restarted_between_two_trials(start, whole, postgres):
    sweep = start()
    sweep.until("trial 0")
    time.sleep(2)  # until the next trial has begun: Optuna is then left alone
    sweep.process.send_signal(signal.SIGSTOP)
    postgres.control("restart")
    sweep.process.send_signal(signal.SIGCONT)
    whole(sweep)
    assert "the study's lock is taken again" in sweep.said


def test_a_node_with_a_full_disk_and_one_with_other_images_get_no_work(
    start, whole, nodes, tmp_path
):
    disk, other = tmp_path / "disk", tmp_path / "other"
    disk.mkdir()
    other.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=1", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a full disk")
    try:
        nodes.add("full", NUTCLF_CACHE=disk)
        nodes.add("foreign", NUTCLF_DATA=other)
        sweep = start()
        whole(sweep)
        assert "node full gets no work: [Errno 28] No space left on device" in sweep.said
        assert f"node foreign gets no work: NUTCLF_DATA is {other}, which lacks" in sweep.said
    finally:
        nodes.remove("full")
        nodes.remove("foreign")
        subprocess.run(["umount", str(disk)], check=True)


def test_ctrl_c_leaves_nothing_on_the_cluster(start, whole):
    sweep = start()
    sweep.until("trial 0")
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.end() == 130, sweep.said
    deadline = time.monotonic() + 10
    while workers():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    whole(start())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--ray", "127.0.0.1:1"), "No Ray cluster answers at '127.0.0.1:1'"),
        (("--ray", "ray://127.0.0.1:1"), "run this on a node of the cluster"),
    ],
)
def test_no_cluster_at_the_address(start, options, says):
    sweep = start(*options)
    assert sweep.end() == 2
    assert says in sweep.said


def test_no_room_for_a_fit(start, nodes):
    sweep = start("--ray", nodes.cluster.address, "--cpus-per-fit", 64)
    assert sweep.end() == 2
    assert "No node of the cluster has room for a fit of 64 processors" in sweep.said
    assert "red: 1 processors, 0 GPUs" in sweep.said


@pytest.mark.parametrize(("database", "password"), [("optuna", "wrong"), ("absent", PASSWORD)])
def test_a_database_that_cannot_be_used(start, postgres, database, password, tmp_path):
    url = postgres.url(database, password)
    sweep = start("--workers", 1, NUTCLF_OPTUNA_STORAGE=url)
    assert sweep.end() == 2
    said = "password authentication failed" if password == "wrong" else "does not exist"
    assert said in sweep.said
    assert PASSWORD not in sweep.said
    assert not (tmp_path / "store").exists()
