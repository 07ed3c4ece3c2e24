"""`export` and `serve` as people type them: what they write, and what they refuse."""

import socket

import pytest


def test_what_cannot_be_is_told_before_any_data_are_looked_for(cli, tmp_path):
    done = cli("export", "--to", "coreml", "--data", "nowhere", NUTCLF_STORE=tmp_path / "store")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nutclf: --to is 'coreml'; allowed: litert, onnx.\n"


@pytest.mark.parametrize("verb", [("export", "--data", "DATA"), ("serve",)])
def test_without_a_champion_the_way_to_one_is_told(cli, nuts, tmp_path, verb, free_port):
    arguments = [str(nuts) if word == "DATA" else word for word in verb]
    arguments += ["--port", free_port()] if verb[0] == "serve" else []
    done = cli(*arguments, NUTCLF_STORE=tmp_path / "store")
    assert done.returncode == 2
    assert done.stderr.startswith("nutclf: 'nutclf' has no champion in ")
    assert "make sweep" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_told(cli, tmp_path):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        done = cli("serve", "--port", one.getsockname()[1], NUTCLF_STORE=tmp_path / "store")
    assert done.returncode == 2
    assert "cannot be listened on (Address already in use); name another with PORT=" in done.stderr


@pytest.mark.slow
def test_export_prints_a_line_a_file(cli, swept_once, copy_store, nuts, tmp_path):
    store = copy_store(swept_once[0], tmp_path / "store")
    out = tmp_path / "exports"
    done = cli("export", "--data", nuts, "--out", out, NUTCLF_STORE=store.folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *_, floats, ints = done.stdout.splitlines()
    assert floats.startswith(f"{out}/nutclf-v1-float.tflite: ")
    assert ints.startswith(f"{out}/nutclf-v1-int8.tflite: ")
    assert "same class as Keras on 1.000 (12/12" in floats
