"""Where records go: one place, made whole or not at all, and locked by one driver."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from nutclf.errors import UserError
from nutclf.track import store as store_module
from nutclf.track.runs import Run
from nutclf.track.store import (
    Store,
    holder,
    lock_model,
    lock_study,
    make_whole,
    study_lock,
    swept_studies,
)

REPO = Path(__file__).parents[2]

# Imports once and forks: to import mlflow takes seconds.
FORKS = """
import os, random, signal, sys, time, traceback
from pathlib import Path
from nutclf.track.store import Store

def start(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

THREE_AT_ONCE = f"""{FORKS}
store = Store.at(sys.argv[1], {{}})
work = lambda: print(store.prepare().experiment_id("nutclf"), flush=True)
print([end(pid) for pid in [start(work) for _ in range(3)]])
"""

# Kills at eight instants of the making that follow each other, and at four random ones.
KILLED = f"""{FORKS}
root = Path(sys.argv[1])
started = time.perf_counter()
assert end(start(Store.at(root / "whole", {{}}).prepare)) == 0
seconds = time.perf_counter() - started
rng = random.Random(0)
instants = [i / 8 for i in range(8)] + [rng.random() for _ in range(4)]
for number, instant in enumerate(instants):
    pid = start(Store.at(root / str(number), {{}}).prepare)
    time.sleep(seconds * instant)
    os.kill(pid, signal.SIGKILL)
    print(end(pid), flush=True)
"""

HOLDER = """
import sys
from nutclf.track.store import Store, lock_study
with lock_study(Store.at(sys.argv[1], {}), "nuts/1"):
    print("held", flush=True)
    sys.stdin.read()
"""


def run_script(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        ("mlruns", "allowed: the address of an MLflow server"),
        ("file:///tmp/mlruns", "allowed: the address of an MLflow server"),
        ("databricks", "allowed: the address of an MLflow server"),
        ("localhost:5000", "if it is a server: http://localhost:5000. Unset"),
        ("postgresql://u:p@127.0.0.1/x", "behind `mlflow server --backend-store-uri`"),
    ],
)
def test_an_address_that_is_no_server_is_refused(tmp_path, address, answer):
    with pytest.raises(UserError, match=re.escape(f"MLFLOW_TRACKING_URI is {address!r}")) as raised:
        Store.at(tmp_path, {"MLFLOW_TRACKING_URI": address})
    assert answer in str(raised.value)


@pytest.mark.parametrize("address", ["journal.log", "mysql://u@h/x", "redis://h", "/x/optuna.db"])
def test_a_storage_that_optuna_gets_not_from_us_is_refused(tmp_path, address):
    with pytest.raises(UserError, match=re.escape(f"STORAGE is {address!r}; allowed: sqlite:")):
        Store.at(tmp_path, {"NUTCLF_OPTUNA_STORAGE": address})


def test_a_folder_that_no_address_can_hold_is_refused_before_it_is_made(tmp_path):
    with pytest.raises(UserError, match="question mark in its path"):
        Store.at(tmp_path / "which?", {})
    assert not (tmp_path / "which?").exists()


def test_records_of_other_classes_need_another_name(store):
    here = store.prepare().experiment_id("beans", ("black", "white"))
    assert store.experiment_id("beans", ("black", "white")) == here
    assert store.experiment_id("beans") == here
    with pytest.raises(UserError, match=r"called 'beans' are of other images, .*black.*MODEL="):
        store.experiment_id("beans", ("black", "green"))


def test_an_explicit_database_wins(store, tmp_path, monkeypatch):
    """The folder then keeps the artifacts only: MLflow's own default is the current folder."""
    monkeypatch.chdir(tmp_path)
    database = tmp_path / "elsewhere.db"
    (store.folder / "mlflow.db").rename(database)
    named = Store.at(store.folder, {"MLFLOW_TRACKING_URI": f"sqlite:///{database}"}).prepare()
    client = MlflowClient(f"sqlite:///{database}")
    run = client.create_run(named.experiment_id("nutclf"))
    with Run(client, run.info.run_id).artifacts() as folder:
        (folder / "note.txt").write_text("here")
    assert not (store.folder / "mlflow.db").exists()
    assert len(list(store.folder.glob("artifacts/nutclf/*/artifacts/note.txt"))) == 1
    assert {name for name in os.listdir() if not name.startswith("elsewhere.db")} == {"store"}


def test_optunas_storage_is_beside_it_unless_it_is_named(tmp_path):
    address = "sqlite:////elsewhere/optuna.db"
    named = Store.at(tmp_path, {"NUTCLF_OPTUNA_STORAGE": address})
    assert named.optuna_url == address
    assert study_lock(named, "x").parent == Path("/elsewhere/locks")
    unset = {"MLFLOW_TRACKING_URI": "", "NUTCLF_OPTUNA_STORAGE": ""}
    assert Store.at(tmp_path, unset) == Store.at(tmp_path, {})
    assert Store.at(tmp_path, {}).optuna_url == f"sqlite:///{tmp_path.resolve()}/optuna.db"
    assert not any(tmp_path.iterdir()), "an address makes nothing"


def test_a_store_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written.*STORE="):
        Store.at(tmp_path / "file" / "store", {}).prepare()
    (tmp_path / "mlflow.db").write_text("no database, but a note that is long enough" * 100)
    with pytest.raises(UserError, match=r"cannot be written.*make doctor"):
        Store.at(tmp_path, {}).prepare()


def test_tables_of_another_mlflow_are_refused_with_the_way_out(store):
    with closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'b7e2c1a4d9f3'")
    other = Store.at(store.folder.rename(store.folder.with_name("other")), {})
    with pytest.raises(UserError, match=r"out-of-date.*make doctor.*FIX=1"):
        other.prepare()


def test_remains_of_an_old_file_store_do_not_matter(store):
    """MLflow by itself takes `mlruns/0/meta.yaml` as a sign to use the file store, and raises."""
    (store.folder / "0").mkdir()
    (store.folder / "0" / "meta.yaml").write_text("experiment_id: '0'\n")
    experiment = store.prepare().client().get_experiment(store.experiment_id("nutclf"))
    assert experiment.artifact_location == (store.folder / "artifacts" / "nutclf").as_uri()
    assert store.experiment_id("nutclf") == experiment.experiment_id


def test_three_processes_make_the_same_new_store(tmp_path):
    done = run_script(THREE_AT_ONCE, tmp_path / "store")
    *experiments, codes = done.communicate(timeout=120)[0].splitlines()
    assert codes == "[0, 0, 0]"
    assert len(experiments) == 3
    assert len(set(experiments)) == 1


def tables_of(database):
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = sorted(row[0] for row in tables.fetchall())
        return names, connection.execute("SELECT * FROM alembic_version").fetchall()


def test_a_store_whose_making_is_killed_is_not_there_or_whole(tmp_path):
    out, errors = run_script(KILLED, tmp_path).communicate(timeout=300)
    codes = out.split()
    assert len(codes) == 12, errors
    expected, unfinished = tables_of(tmp_path / "whole" / "mlflow.db"), []
    for folder in (path for path in tmp_path.iterdir() if path.name != "whole"):
        if (folder / "mlflow.db").exists():
            assert tables_of(folder / "mlflow.db") == expected
        elif (folder / "mlflow.db.new").exists():
            unfinished.append(folder)
    assert len(unfinished) > 2, "killed in the middle of the tables"
    for folder in unfinished[:2]:
        store = Store.at(folder, {}).prepare()
        assert tables_of(folder / "mlflow.db") == expected
        assert store.client().create_run(store.experiment_id("nutclf")).info.status == "RUNNING"
        assert not (folder / "mlflow.db.new").exists()


@pytest.mark.parametrize(
    "spoil", ["DELETE FROM alembic_version", "CREATE TABLE _alembic_tmp_metrics (key)"]
)
def test_a_database_that_was_left_half_made_is_made_anew_unless_it_holds_a_run(tmp_path, spoil):
    """As version 0.1 could leave one, killed while MLflow made its tables."""
    whole = Store.at(tmp_path / "whole", {}).prepare()
    experiment, expected = whole.experiment_id("nutclf"), tables_of(tmp_path / "whole/mlflow.db")
    assert whole.prepare().experiment_id("nutclf") == experiment, "a whole one is left alone"

    def spoiled(name):
        whole.checkpoint()
        (tmp_path / name).mkdir()
        shutil.copy(tmp_path / "whole/mlflow.db", tmp_path / name)
        with closing(sqlite3.connect(tmp_path / name / "mlflow.db")) as connection, connection:
            connection.execute(spoil)
        return Store.at(tmp_path / name, {})

    spoiled("empty").prepare()
    assert tables_of(tmp_path / "empty/mlflow.db") == expected
    run = whole.client().create_run(experiment).info.run_id
    with suppress(UserError):
        spoiled("filled").prepare()
    with closing(sqlite3.connect(tmp_path / "filled/mlflow.db")) as connection:
        assert connection.execute("SELECT run_uuid FROM runs").fetchall() == [(run,)]


def test_a_database_is_made_once_and_of_nothing_that_was_left(tmp_path):
    database, folder = tmp_path / "records.db", tmp_path / "records.db.new"
    folder.mkdir()
    (folder / "records.db").write_text("left by a killed process")
    (tmp_path / "records.db-wal").write_text("of a database that was deleted")
    database.touch()  # as SQLite leaves one that was opened only

    def make(url, fail=False):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("CREATE TABLE runs (name)")
            connection.execute("INSERT INTO runs VALUES ('first')")
        if fail:
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        make_whole(database, lambda url: make(url, fail=True))
    assert database.stat().st_size == 0
    make_whole(database, make)
    made = database.read_bytes()
    make_whole(database, pytest.fail)
    assert database.read_bytes() == made
    assert [path.name for path in tmp_path.iterdir()] == ["records.db"]


def test_a_server_that_does_not_answer_is_asked_once(tmp_path, free_port, monkeypatch):
    monkeypatch.setattr(store_module, "_SERVER_S", 1)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=rf"{address} does not answer.*unset MLFLOW_TRACKING_URI"):
        Store.at(tmp_path / "a", {"MLFLOW_TRACKING_URI": address}).prepare()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(UserError, match="does not answer"):
            Store.at(tmp_path / "b", {"MLFLOW_TRACKING_URI": address}).prepare()
        assert time.monotonic() - started < 5
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ, "MLflow's own retries from here on"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"


@pytest.mark.slow
def test_a_server_that_does_not_serve_this_client_is_refused(server, tmp_path):
    allowed = f"127.0.0.1:{server.port}"
    server.options = ("--allowed-hosts", allowed, "--no-serve-artifacts")
    server.options += ("--default-artifact-root", "/nowhere/artifacts")
    with server():
        for address, says in (
            (f"http://localhost:{server.port}", r"403.*--allowed-hosts"),
            (f"http://{allowed}", r"own folder /nowhere/artifacts.*--artifacts-destination"),
        ):
            there = Store.at(tmp_path / "store", {"MLFLOW_TRACKING_URI": address})
            with pytest.raises(UserError, match=says):
                there.prepare()


def test_a_second_driver_is_refused_until_the_first_one_ends_or_is_killed(tmp_path):
    store = Store.at(tmp_path, {})
    first = run_script(HOLDER, tmp_path)
    assert first.stdout.readline() == "held\n"
    says = rf"Study 'nuts/1' is being swept by .+@.+ \(pid {first.pid}\) since 20\d\d-.* WORKERS="
    with pytest.raises(UserError, match=says), lock_study(store, "nuts/1"):
        pass
    (who,) = swept_studies(store)
    assert f"(pid {first.pid}) since" in who
    with lock_study(store, "nuts-1"):
        assert len(swept_studies(store)) == 2, "another study, whatever its file may be called"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not holder(study_lock(store, "nuts/1"))
    assert swept_studies(store) == []
    second = run_script(HOLDER, tmp_path)
    assert second.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"\(pid {second.pid}\)"), lock_study(store, "nuts/1"):
        pass
    second.communicate()
    with lock_study(store, "nuts/1"):
        assert f"(pid {os.getpid()})" in swept_studies(store)[0]


def test_a_promotion_waits_for_another_and_not_for_ever(tmp_path):
    store, entered, done = Store.at(tmp_path, {}), threading.Event(), threading.Event()

    def promotes():
        with lock_model(store, "nutclf"):
            entered.set()
            done.wait(30)

    thread = threading.Thread(target=promotes)
    thread.start()
    assert entered.wait(30)
    refused = pytest.raises(UserError, match=r"model 'nutclf' is under way by .*make promote")
    with refused, lock_model(store, "nutclf", patience_s=0.1):
        pass
    with lock_model(store, "other", patience_s=0.1):
        pass
    threading.Timer(0.3, done.set).start()
    with lock_model(store, "nutclf", patience_s=30):
        assert done.is_set()
    thread.join()


def test_what_fails_inside_lets_go_of_the_lock(tmp_path):
    store = Store.at(tmp_path, {})
    with pytest.raises(ZeroDivisionError), lock_study(store, "a"):
        raise ZeroDivisionError
    assert swept_studies(store) == []
    assert not list(tmp_path.rglob("*.txt"))
