"""Servers in processes of their own, started as people do, and asked as the README says."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

FORM = "curl -s -F image=@photo.jpg http://127.0.0.1:8000/predict"
TEXT = (
    "(printf '{\"inputs\": [\"'; base64 < photo.jpg | tr -d '\\n'; printf '\"]}') | "
    "curl -s http://127.0.0.1:8000/invocations -H 'Content-Type: application/json' -d @-"
)

FIELDS = {"answer", "label", "confidence", "probabilities", "top3", "familiarity", "nearest"}


@contextmanager
def process(command, port, log, **options):
    """A server, once it answers; its end by Ctrl-C."""
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=out, start_new_session=True, **options
        )
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield server
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(30)


def _answers(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status in (200, 404)
    except OSError:
        return False
    finally:
        connection.close()


def asked(command, port, folder):
    """What a command of the docs prints."""
    command = command.replace("8000", str(port))
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture
def folder(nuts, tmp_path):
    """Where a person has a photograph, and no checkout of ours."""
    shutil.copy(nuts / "valid" / "pecans" / "0.png", tmp_path / "photo.jpg")
    return tmp_path


@pytest.mark.slow
def test_serve_answers_the_curl_of_the_readme_and_ends_by_ctrl_c(
    with_champion, checkout, cli_environ, folder, free_port
):
    port = free_port()
    command = [sys.executable, "-m", "nutclf", "serve", "--port", str(port)]
    environ = cli_environ(NUTCLF_STORE=with_champion.folder)
    log = folder / "log"
    with process(command, port, log, cwd=checkout, env=environ) as server:
        (answer,) = asked(FORM, port, folder)["predictions"]
        assert answer["file"] == "photo.jpg"
        assert set(answer) > FIELDS
        os.kill(server.pid, signal.SIGHUP)  # looks for a new champion, and goes on
        assert asked(FORM, port, folder)["predictions"] == [answer]
        with socket.socket() as other:
            assert other.connect_ex(("127.0.0.2", port)) != 0, "this machine only"
        again = subprocess.run(
            command, cwd=checkout, env=environ, capture_output=True, text=True, check=False
        )
        assert again.returncode == 2
        assert f"127.0.0.1 port {port} cannot be listened on" in again.stderr
    assert server.returncode == 130
    assert f"version 1: http://127.0.0.1:{port} " in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_mlflow_alone_serves_the_version_where_this_package_is_not_installed(
    with_champion, folder, cli_environ, free_port
):
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/nutclf@champion"]
    command += ["--env-manager", "local", "--port", str(port)]
    environ = cli_environ(
        MLFLOW_TRACKING_URI=with_champion.tracking_uri,
        PATH=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
    )
    environ.pop("PYTHONPATH", None)
    importing = [sys.executable, "-c", "import nutclf"]
    done = subprocess.run(importing, cwd=folder, env=environ, capture_output=True, check=False)
    assert done.returncode == 1, "otherwise this says nothing"
    with process(command, port, folder / "log", cwd=folder, env=environ):
        (answer,) = asked(TEXT, port, folder)["predictions"]
    assert set(answer) == FIELDS
