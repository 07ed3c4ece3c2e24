"""Records of an absent MLflow server: a real one, stopped and started again."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import keras
import numpy as np
import pytest

from nutclf.errors import UserError
from nutclf.track import outbox as outbox_file
from nutclf.track.models import load_metadata, load_model, open_outbox
from nutclf.track.models import log_model as log
from nutclf.track.registry import model_uri
from nutclf.track.runs import study_run, trial_run
from nutclf.track.store import Store

TAGS = {"data_fingerprint": "f" * 64, "data_source": "drawn"}


@pytest.fixture(scope="module")
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def serve(tmp_path_factory, port):
    """`with serve():` an MLflow server on `port`, its records kept from one time to the next."""
    folder = tmp_path_factory.mktemp("server")

    @contextmanager
    def serving():
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        # Settings that other tests left would be the server's too.
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
        with (folder / "server.log").open("ab") as log:
            server = subprocess.Popen(
                command,
                cwd=folder,
                env=kept | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
            )
        try:
            _wait(f"http://127.0.0.1:{port}/health", folder / "server.log")
            yield
        finally:
            server.terminate()
            server.wait(20)

    return serving


def _wait(address, log):
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(address, timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                pytest.fail(f"No answer of MLflow's server within a minute:\n{log.read_text()}")
            time.sleep(0.2)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(outbox_file, "_PAUSE_S", 1.0)


@pytest.fixture
def remote(tmp_path, port):
    return Store.at(tmp_path, {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"})


@pytest.mark.slow
def test_what_an_absent_server_misses_is_delivered_when_it_is_back(serve, remote, impatient):
    pixels = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(pixels)
    model = keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(pooled))
    with serve():
        remote.prepare()
        box = open_outbox(remote)
        parent = study_run(remote, remote.experiment_id("nutclf"), "away", TAGS, box)
        first = trial_run(parent, "t000", 0, TAGS)
        first.metrics({"valid_loss": 0.9}, step=1)
        assert box.waiting() == 0
    first.metrics({"valid_loss": 0.5}, step=2)
    with first.artifacts() as folder:
        (folder / "note.txt").write_text("kept")
    log(first, model, {"classes": ["almonds", "pecans"]})
    first.end("COMPLETE")
    second = trial_run(parent, "t001", 1, TAGS)
    second.params({"n_unfrozen": 4})
    second.end("PRUNED", "poorer")
    assert box.waiting() == 9
    time.sleep(1.1)
    # Another process, at the next start.
    with serve():
        again = open_outbox(remote)
        assert again.deliver_all(remote.client()) == 0
        client, experiment = remote.client(), remote.experiment_id("nutclf")
        runs = {run.info.run_name: run for run in client.search_runs([experiment])}
        assert runs["t000"].info.status == "FINISHED"
        history = client.get_metric_history(runs["t000"].info.run_id, "valid_loss")
        assert [(point.step, point.value) for point in history] == [(1, 0.9), (2, 0.5)]
        files = [file.path for file in client.list_artifacts(runs["t000"].info.run_id)]
        assert files == ["note.txt"]
        uri = model_uri(client, runs["t000"])
        assert load_metadata(remote, uri)["classes"] == ["almonds", "pecans"]
        images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.float32)
        np.testing.assert_allclose(
            load_model(remote, uri).predict(images, verbose=0),
            model.predict(images, verbose=0),
            atol=1e-6,
        )
        assert (runs["t001"].info.status, runs["t001"].data.params) == (
            "KILLED",
            {"n_unfrozen": "4"},
        )
        assert runs["t001"].data.tags["reason"] == "poorer"
        assert second.run_id == runs["t001"].info.run_id


def test_a_server_that_never_was_is_refused_at_once(remote, impatient):
    with pytest.raises(UserError, match="does not answer as it should"):
        remote.prepare()


def test_a_refusal_is_no_absence(store):
    run = study_run(store, store.experiment_id("nutclf"), "here", TAGS)
    box = outbox_file.Outbox(store.folder / "outbox", {})
    with pytest.raises(ValueError, match="no"):
        box.send(store.client(), run.run_id, "tags", {}, lambda run_id: _refuse())
    assert box.waiting() == 0


def _refuse():
    raise ValueError("no")
