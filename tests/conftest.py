"""What tests of several rooms share: tiny images, a tiny network, and stores made once.

Heavy libraries are imported inside the fixtures that need them: most tests need none.
"""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nutclf.config import OBJECTIVES, SPLITS, Recipe, SearchSpace, StudyConfig
from nutclf.process import keep_freed_memory

keep_freed_memory()

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # read when TensorFlow is imported, never afterwards
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

REPO = Path(__file__).parents[1]
CLASSES = ("almonds", "pecans", "walnuts")
SIDE = 32  # pixels, of the tiny network's input
OF_MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")  # which `mlflow.set_...uri` set, too
OURS = (*OF_MLFLOW, "NUTCLF_STORE", "NUTCLF_DATA", "NUTCLF_WEIGHTS", "NUTCLF_CACHE")
FOREIGN_WARNINGS = (
    # mlflow 3.17.2 maps its tables with a loader strategy that SQLAlchemy 2.1 deprecates.
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning",
    # mlflow.pyfunc, on import, of a function of mlflow's own.
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
)


def pytest_configure(config):
    for line in FOREIGN_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """No setting of the person who runs the tests reaches them, and none of theirs stays."""
    for name in (*OURS, "NUTCLF_OPTUNA_STORAGE"):
        monkeypatch.setenv(name, "")  # so that it is put back, whatever a test makes of it
        monkeypatch.delenv(name)
    # urllib keeps the proxies of its first call: those that a test set would be everybody's.
    urllib.request.install_opener(None)


@pytest.fixture(scope="session")
def nuts(tmp_path_factory) -> Path:
    """Three classes of 8, 4 and 4 noisy 96 x 96 PNG, each class a colour of its own."""
    root = tmp_path_factory.mktemp("data") / "nuts"
    rng = np.random.default_rng(0)
    for split, count in zip(SPLITS, (8, 4, 4), strict=True):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (96, 96, 3), np.uint8)
                pixels[:, :, label] += 100
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def source(nuts):
    """The tiny images as the command line finds them."""
    from nutclf.data.source import resolve

    return resolve(str(nuts), environ={}, workdir=nuts.parent)


@pytest.fixture(scope="session")
def load_split(source):
    """Opens a split for promotion; `load_split.asked` lists what was asked for."""
    from nutclf.data.folder import read_split

    def load(split: str, size: int):
        load.asked.append(split)
        return read_split(source.data, split, size)

    load.asked = []
    return load


@pytest.fixture(scope="session")
def tiny_config() -> StudyConfig:
    """A study of the tiny network; its trials take a second."""
    space = SearchSpace(
        n_unfrozen=(0, 4),
        epochs=(1, 3),
        lr_schedule=("constant", "cosine"),
        learning_rate=(1e-6, 1e38),  # at the upper end the loss is no number any more
    )
    baseline = Recipe(epochs=3, lr_schedule="cosine", learning_rate=1e-2)
    valid = OBJECTIVES["valid"]
    return StudyConfig("tiny", "tiny", space, valid, baseline=baseline, n_views=2)


@pytest.fixture(scope="session", autouse=True)
def tiny_spec():
    """The tiny network, known by its name: two convolutions at 32 pixels, as MobileNetV2's 154
    layers take seconds to trace."""
    from nutclf.model.backbones import BACKBONES, BackboneSpec

    class Tiny(BackboneSpec):
        def build(self, **arguments):
            import keras

            glorot = keras.initializers.GlorotUniform
            pixels = keras.Input((SIDE, SIDE, 3))
            hidden = keras.layers.Conv2D(8, 3, strides=2, kernel_initializer=glorot(0))(pixels)
            hidden = keras.layers.ReLU()(hidden)
            hidden = keras.layers.Conv2D(8, 3, strides=2, kernel_initializer=glorot(1))(hidden)
            hidden = keras.layers.BatchNormalization()(hidden)
            hidden = keras.layers.ReLU()(hidden)
            return keras.Model(pixels, keras.layers.AveragePooling2D(2)(hidden), name="tiny")

    BACKBONES["tiny"] = Tiny("tiny", "none", SIDE, (1 / 127.5,) * 3, (-1.0,) * 3, "none")
    return BACKBONES["tiny"]


@pytest.fixture(scope="session")
def tiny_backbone(tiny_spec):
    """The tiny network, built."""
    from nutclf.model.backbones import load_backbone

    return load_backbone("tiny", "random")


@pytest.fixture(scope="session")
def tiny_whole(tiny_backbone):
    """The tiny network as it is saved, for three classes, untrained."""
    from nutclf.model import cuts
    from nutclf.model.network import Deployable, build_tail

    trunk = cuts.trunk(tiny_backbone.model)
    tail = build_tail(trunk, len(trunk.layers) - 1, 0, 3, 0.5, 0)
    weights = {layer.name: layer.get_weights() for layer in tail.layers if layer.weights}
    return Deployable(tiny_backbone, 3).fill(weights)


@pytest.fixture(scope="session")
def lively():
    """MobileNetV2 at 96 pixels with the shipped weights: its outputs are of order 1.

    A freshly drawn network puts out 1e-11 for every image: any two of its results are close.
    """
    from nutclf.model.backbones import Backbone, find_spec, from_package, weights_digest

    spec = find_spec("mobilenetv2", 96)
    model = spec.build()
    from_package(spec, model)
    return Backbone(spec, model, "shipped", weights_digest(model))


@pytest.fixture(scope="session")
def features(tmp_path_factory):
    """A feature store that all tests share, as all trials do."""
    from nutclf.train.feature_store import FeatureStore

    return FeatureStore(tmp_path_factory.mktemp("features"), 10**8)


@pytest.fixture(scope="session")
def bench(tiny_config, tiny_backbone, source, features):
    """The tiny network and the tiny images, ready to fit any recipe."""
    from nutclf.data.folder import read_split
    from nutclf.train.workbench import Workbench

    splits = {s: read_split(source.data, s, SIDE) for s in ("train", "valid")}
    return Workbench(tiny_config, tiny_backbone, CLASSES, splits, features)


@pytest.fixture(scope="session")
def data_facts(source):
    """What a run says of the tiny images."""
    from nutclf.track.runs import DataRecord

    return DataRecord.of(source)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Path:
    """A store without records; to make its tables takes 1.5 s, to copy them none."""
    import optuna

    from nutclf.track.store import Store

    folder = tmp_path_factory.mktemp("migrated") / "store"
    store = Store.at(folder, {}).prepare()
    optuna.storages.RDBStorage(store.optuna_url)
    return folder


@pytest.fixture
def store(migrated, tmp_path, copy_store):
    """A store of the test's own, without records."""
    return copy_store(migrated, tmp_path / "store")


@pytest.fixture(scope="session")
def copy_store():
    """Copies a store: `copy_store(folder, to)`."""
    return _copy_store


def _copy_store(folder: Path, to: Path):
    """A copy of a store, and its records lead to its own artifacts, not to the original's."""
    from mlflow.tracking._tracking_service import client

    from nutclf.track.store import Store

    client.utils._artifact_repos_cache.clear()  # by run id, and the copies have the same ones
    shutil.copytree(folder, to)
    with sqlite3.connect(to / "mlflow.db") as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master").fetchall()]
        for table in tables:
            columns = database.execute(f"PRAGMA table_info('{table}')").fetchall()
            for _, column, kind, *_ in columns:
                if kind.upper().startswith(("VARCHAR", "TEXT")):
                    update = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                    database.execute(update, (str(folder), str(to)))
    database.close()
    return Store.at(to, {}).prepare()


@pytest.fixture(scope="session")
def begin(source, data_facts, features):
    """Opens a study of the tiny network in a store, without pruning: `begin(store, config)`."""
    import optuna

    from nutclf.search.driver import prepare
    from nutclf.search.study import open_study
    from nutclf.search.trial import OpenStudy
    from nutclf.track.runs import study_run

    def begin(store, config, experiment="nutclf"):
        setting, size = prepare(config, source, store, features, print, "random")
        facts = {"data_fingerprint": data_facts.fingerprint, "weights_digest": setting.digest}
        study, _ = open_study(store, config, facts)
        study.pruner = optuna.pruners.NopPruner()
        run = study_run(store, store.experiment_id(experiment), config.name, data_facts.tags)
        return OpenStudy(study, run, setting, data_facts, size)

    return begin


@pytest.fixture(scope="session")
def run_trial():
    """Runs a study's next trial to its end, in this process: `run_trial(study)`, its outcome."""
    from nutclf.search.engines import ThisProcess
    from nutclf.search.trial import LiveTrial, Outcome

    def run_trial(study):
        trial = LiveTrial(study, study.optuna.ask())
        step = trial.begin()
        while not isinstance(step, Outcome):
            fold = getattr(step, "fold", None)
            future = ThisProcess().submit(step, partial(trial.fits.on_epoch, fold))
            error = future.exception()
            step = trial.fail(error) if error else trial.advance(future.result())
        return step

    return run_trial


@pytest.fixture(scope="session")
def with_champion(
    tmp_path_factory, migrated, begin, run_trial, tiny_config, copy_store, load_split, source
):
    """A store with a study of one trial, `promoted`, and its champion; only to be read."""
    from dataclasses import replace

    from nutclf.track.promotion import promote

    store = copy_store(migrated, tmp_path_factory.mktemp("with_champion") / "store")
    config = replace(tiny_config, name="promoted")
    assert run_trial(begin(store, config)).state == "COMPLETE"
    fingerprint = source.data.fingerprint
    promote(store, "nutclf", config.name, config.objective, load_split, fingerprint, dict)
    return store


@dataclass
class Server:
    """An MLflow server that can be away: `with server():`, its records kept meanwhile."""

    folder: Path
    port: int
    backend: str = ""  # address of its database; a file in the folder if empty
    options: tuple[str, ...] = ()  # where artifacts go; the folder if empty

    @contextmanager
    def __call__(self) -> Iterator[None]:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--port", str(self.port)]
        backend = self.backend or f"sqlite:///{self.folder}/mlflow.db"
        command += ["--backend-store-uri", backend]
        command += self.options or ("--artifacts-destination", str(self.folder / "artifacts"))
        # Settings that other tests left would be the server's too.
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
        with (self.folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=kept | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
            )
        try:
            self._wait()
            yield
        finally:
            process.terminate()
            process.wait(20)

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1).close()
                return
            except OSError as error:
                log = self.folder / "server.log"
                assert time.monotonic() < deadline, f"{error}\n{log.read_text()}"
                time.sleep(0.2)


@pytest.fixture(scope="session")
def free_port():
    """A port that nobody listens on: `free_port()`."""

    def free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    return free_port


@pytest.fixture(scope="session")
def answers_at():
    """Whether anybody listens there: `answers_at(host, port)`."""

    def answers_at(host: str, port: int) -> bool:
        with socket.socket() as probe:
            probe.settimeout(5)
            return probe.connect_ex((host, port)) == 0

    return answers_at


_UI = """
import sys
from nutclf.process import hear_signals_once
from nutclf.track.store import Store
from nutclf.track.ui import serve_ui
hear_signals_once()
serve_ui(Store.at(sys.argv[1], {}), int(sys.argv[2]))
"""


@pytest.fixture(scope="session")
def ui_at(answers_at):
    """The MLflow UI in a process of its own: `with ui_at(store, port):`."""

    @contextmanager
    def ui_at(store, port: int) -> Iterator[None]:
        process = subprocess.Popen(
            [sys.executable, "-c", _UI, str(store.folder), str(port)],
            cwd=REPO,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 60
            while not answers_at("127.0.0.1", port):
                assert time.monotonic() < deadline, "the UI did not start"
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            assert process.wait(30) == 143

    return ui_at


@pytest.fixture
def struck():
    """Ctrl-C as soon as the database has done a statement that begins so, before it is kept."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @contextmanager
    def strike(beginning: str) -> Iterator[None]:
        def after(connection, cursor, statement, *rest):
            if statement.startswith(beginning):
                signal.raise_signal(signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        event.listen(Engine, "after_cursor_execute", after)
        try:
            yield
        finally:
            event.remove(Engine, "after_cursor_execute", after)
            signal.signal(signal.SIGINT, before)

    return strike


@pytest.fixture(scope="session")
def server_at():
    """An MLflow server, not started: `server_at(folder, port, backend)`."""
    return Server


@pytest.fixture
def server(tmp_path, free_port):
    """An MLflow server, not started."""
    (tmp_path / "server").mkdir()
    return Server(tmp_path / "server", free_port())


@pytest.fixture
def remote(server, tmp_path, monkeypatch):
    """The store whose MLflow is `server`; MLflow's client gives up on it at once."""
    from nutclf.track.store import Store

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = f"http://127.0.0.1:{server.port}"
    return Store.at(tmp_path / "store", {"MLFLOW_TRACKING_URI": address})


@dataclass
class Cli:
    """Runs verbs in processes of their own, and keeps what they print.

    A parent has imported the libraries already and forks: a mistake takes half a second to be
    found, not ten.
    """

    checkout: Path
    parent: subprocess.Popen
    scratch: Path

    def __call__(self, *arguments: object, **environ: object) -> subprocess.CompletedProcess:
        out, err = self.scratch / "stdout", self.scratch / "stderr"
        job = {
            "arguments": [str(argument) for argument in arguments],
            "environ": _cli_environ(**environ),
            "cwd": str(self.checkout),
            "out": str(out),
            "err": str(err),
        }
        self.parent.stdin.write(json.dumps(job) + "\n")
        self.parent.stdin.flush()
        code = int(self.parent.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


_FORKING_PARENT = """
import json, os, runpy, sys, traceback
import keras, mlflow.keras, optuna, seaborn, sklearn.metrics, tensorflow, typer
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in ((1, job["out"]), (2, job["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.clear()
        os.environ.update(job["environ"])
        os.chdir(job["cwd"])
        sys.path[0], sys.argv = job["cwd"], ["nutclf", *job["arguments"]]
        code = 0
        try:
            runpy.run_module("nutclf", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            code = 1
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)  # to take TensorFlow down in good order costs a second and a half
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def _cli_environ(**environ: object) -> dict[str, str]:
    """The environment of a verb: nothing of ours but what is given."""
    ours = ("NUTCLF", *OF_MLFLOW)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return kept | {key: str(value) for key, value in environ.items()}


@pytest.fixture(scope="session")
def cli_environ():
    """The environment of a verb: `cli_environ(NUTCLF_STORE=...)`."""
    return _cli_environ


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Path:
    """The package in a folder of its own, with studies that are quick."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(REPO / "nutclf", root / "nutclf", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "experiments").mkdir()
    for name, backbone in (("quick", "mobilenetv2"), ("unknown", "resnet5")):
        (root / "experiments" / f"{name}.py").write_text(_QUICK.format(name=name, net=backbone))
    for name in ("mobilenetv2", "densenet169"):
        shutil.copy(REPO / "experiments" / f"{name}.py", root / "experiments")
    return root


# Trial 0 takes one epoch, the others hundreds: time enough to stop one in the middle.
_QUICK = '''"""A study for tests."""

from nutclf.config import OBJECTIVES, Recipe, SearchSpace, StudyConfig

STUDY = StudyConfig(
    name="{name}",
    objective=OBJECTIVES["valid"],
    backbone="{net}",
    space=SearchSpace(n_unfrozen=(0, 4), epochs=(1, 5000), lr_schedule=("constant",)),
    baseline=Recipe(epochs=1, lr_schedule="constant"),
    n_views=1,
    image_size=32,
    probes=(),
    blend=(),
)
'''


@pytest.fixture(scope="session")
def cli(checkout, tmp_path_factory):
    """Runs `python -m nutclf` in the checkout: `cli("sweep", "--trials", 1, NUTCLF_STORE=...)`."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _FORKING_PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=checkout,
        env=_cli_environ(),
    )
    yield Cli(checkout, parent, tmp_path_factory.mktemp("cli"))
    parent.communicate()


@pytest.fixture(scope="session")
def swept_once(cli, nuts, tmp_path_factory):
    """A sweep of one trial: the folder of its records, only to be read, and what it printed."""
    folder = tmp_path_factory.mktemp("swept") / "store"
    quick = ("--study", "quick", "--weights", "random", "--data", nuts)
    return folder, cli("sweep", *quick, "--trials", 1, NUTCLF_STORE=folder)


@pytest.fixture(scope="session")
def running():
    """Runs an ASGI application in a thread: `with running(app) as port`."""
    import uvicorn

    from nutclf.process import listen

    @contextmanager
    def running(app) -> Iterator[int]:
        listening = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()

    return running


@pytest.fixture
def browser(tmp_path):
    """Headless Chromium with a profile of its own."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("no chromium with chromedriver here: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("headless=new", "no-sandbox", "window-size=1600,1000"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tmp_path}")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()
