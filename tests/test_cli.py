"""The verbs as people type them: exit codes, one sentence for a mistake, nothing left behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from nutclf.cli import seconds_of
from nutclf.track.store import Store

NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
QUICK = ("--study", "quick", "--weights", "random")


@dataclass
class Records:
    """What a folder holds of runs and trials; looking makes no folder and no table."""

    folder: Path

    @property
    def runs(self):
        if not (self.folder / "mlflow.db").exists():
            return []
        client = MlflowClient(Store.at(self.folder, {}).tracking_uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return sorted(client.search_runs(experiments), key=lambda run: run.info.start_time)

    @property
    def of_trials(self):
        return [run for run in self.runs if run.data.tags["kind"] == "trial"]

    @property
    def studies(self):
        if not (self.folder / "optuna.db").exists():
            return []
        return optuna.get_all_study_names(Store.at(self.folder, {}).optuna_url)

    @property
    def trials(self):
        address = Store.at(self.folder, {}).optuna_url
        return optuna.load_study(study_name="quick", storage=address).get_trials()


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "store")


@pytest.fixture
def refused(cli, records, tmp_path):
    """Runs a verb that must end in one sentence; gives the sentence."""

    def refused(*arguments, **environ):
        settings = {"NUTCLF_STORE": records.folder, "HOME": tmp_path} | NO_NETWORK | environ
        done = cli(*arguments, **settings)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert done.stderr.startswith("nutclf: ")
        assert done.stderr.count("\n") == 1, "one line"
        assert done.stderr.endswith(".\n"), "a sentence"
        assert (records.runs, records.studies) == ([], [])
        return done.stderr

    return refused


@pytest.fixture
def tree(nuts, tmp_path):
    """Images of the test's own, to be spoiled."""
    return shutil.copytree(nuts, tmp_path / "nuts")


def test_data_without_train(refused, tree):
    shutil.rmtree(tree / "train")
    assert "train" in refused("sweep", *QUICK, "--data", tree)


def test_data_that_are_not_there(refused, tmp_path):
    assert "nowhere" in refused("sweep", *QUICK, "--data", tmp_path / "nowhere")
    assert "NUTCLF_DATA" in refused("sweep", *QUICK, NUTCLF_DATA=tmp_path / "nowhere")


def test_a_class_in_valid_only(refused, tree):
    (tree / "valid" / "pecans").rename(tree / "valid" / "peanuts")
    assert "peanuts" in refused("sweep", *QUICK, "--data", tree)


def test_an_empty_class_folder(refused, tree):
    for image in (tree / "train" / "pecans").iterdir():
        image.unlink()
    assert "pecans" in refused("sweep", *QUICK, "--data", tree)


def test_one_class_only(refused, tree):
    for split in ("train", "valid", "test"):
        for name in ("pecans", "walnuts"):
            shutil.rmtree(tree / split / name)
    assert "two" in refused("sweep", *QUICK, "--data", tree)


def test_images_that_are_none(refused, tree):
    for image in (tree / "valid").rglob("*.png"):
        image.write_text("<html>404</html>")
    assert "12 of 12 valid images" in refused("sweep", *QUICK, "--data", tree)


def test_an_unknown_study(refused, nuts):
    for verb in ("sweep", "promote"):
        sentence = refused(verb, "--study", "nothing", "--data", nuts)
        assert "'nothing'" in sentence
        assert "densenet169, mobilenetv2, quick" in sentence


def test_an_unknown_backbone(refused, nuts):
    sentence = refused("sweep", "--study", "unknown", "--data", nuts)
    assert "'resnet5'" in sentence
    assert "densenet169" in sentence


def test_unknown_weights(refused, nuts):
    assert "'radnom'" in refused("sweep", "--study", "quick", "--weights", "radnom", "--data", nuts)


def test_a_store_that_cannot_be_written(refused, nuts, tmp_path):
    """A folder without write permission would do too, but not for root."""
    (tmp_path / "file").write_text("in the way")
    for arguments in (("sweep", *QUICK, "--data", nuts), ("promote", "--data", nuts)):
        sentence = refused(*arguments, NUTCLF_STORE=tmp_path / "file" / "store")
        assert "cannot be written" in sentence
        assert "STORE=" in sentence


def test_a_file_store(refused, nuts):
    for address in ("./mlruns", "file:./mlruns"):
        sentence = refused("sweep", *QUICK, "--data", nuts, MLFLOW_TRACKING_URI=address)
        assert "MLFLOW_TRACKING_URI" in sentence


def test_weights_of_another_network(refused, nuts, tmp_path):
    import keras

    other = keras.applications.MobileNetV2(alpha=0.35, include_top=False, weights=None)
    file = tmp_path / "mobilenet_v2_1.0_224_no_top.weights.h5"
    other.save_weights(file)
    sentence = refused("sweep", "--data", nuts, NUTCLF_WEIGHTS=tmp_path)
    assert file.name in sentence
    assert "MobileNetV2" in sentence


def test_a_folder_of_weights_that_is_not_there(refused, nuts, tmp_path):
    assert "nowhere" in refused("sweep", "--data", nuts, NUTCLF_WEIGHTS=tmp_path / "nowhere")


def test_no_weights_and_no_network(refused, nuts):
    started = time.monotonic()
    sentence = refused("sweep", "--study", "densenet169", "--data", nuts)
    assert time.monotonic() - started < 60
    assert "No weights for densenet169" in sentence
    assert "NUTCLF_WEIGHTS" in sentence


@pytest.mark.parametrize("timeout", ["abc", "0", "-5", "1d"])
def test_a_timeout_that_is_none(refused, nuts, timeout):
    sentence = refused("sweep", *QUICK, "--data", nuts, f"--timeout={timeout}")
    assert repr(timeout) in sentence
    assert "10m" in sentence


def test_the_ways_to_write_a_timeout():
    written = [seconds_of(text) for text in ("", "30", "10m", "1.5 min", "1h")]
    assert written == [None, 1800, 600, 90, 3600]


def test_predict_of_a_missing_file(refused, tmp_path):
    assert "'nowhere.jpg'" in refused("predict", "nowhere.jpg")


def test_predict_without_a_champion(refused, nuts):
    sentence = refused("predict", nuts / "valid" / "pecans")
    assert "no champion" in sentence
    assert "make sweep" in sentence


def test_a_tilde_is_the_home_of_the_person_also_where_the_shell_leaves_it(cli, nuts, tmp_path):
    cli("predict", nuts / "valid", HOME=tmp_path, NUTCLF_STORE="~/records")
    assert (tmp_path / "records" / "mlflow.db").exists()


def test_promote_without_a_sweep(refused, nuts):
    sentence = refused("promote", "--study", "quick", "--data", nuts)
    assert "no finished run" in sentence
    assert "make sweep" in sentence


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("sweep", "--trails", "3"), "--trails"),
        (("sweep", "--trials", "many"), "--trials"),
        (("sweep", "--trials", "0"), "--trials"),
        (("predict",), "images"),
        (("swep",), "swep"),
    ],
)
def test_a_misspelt_command(cli, records, arguments, complaint):
    done = cli(*arguments, NUTCLF_STORE=records.folder)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not records.folder.exists()


@pytest.fixture(scope="module")
def swept(swept_once):
    """A sweep of one trial: its records, and what it printed."""
    folder, done = swept_once
    return Records(folder), done


@pytest.fixture
def copy(swept, copy_store, tmp_path):
    """The records of the sweep, to be written to."""
    return Records(copy_store(swept[0].folder, tmp_path / "store").folder)


def test_a_sweep_says_where_it_stands_what_it_decided_and_where_to_look(swept):
    records, done = swept
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    (progress,) = (line for line in lines if line.startswith("[1/1] trial 0: "))
    assert progress.endswith("done")
    assert any("is champion: there was none before" in line for line in lines)
    assert f"make ui STORE={records.folder}" in done.stdout
    assert "make predict IMAGE=" in lines[-1]
    assert "models:/nutclf@champion" in lines[-1]


def test_a_sweep_leaves_its_study_at_rest(swept):
    records, _ = swept
    study, _, *seeds = records.runs
    assert {run.info.status for run in records.runs} == {"FINISHED"}
    assert [run.data.tags["kind"] for run in seeds] == ["seed", "seed"]
    assert study.data.params["space.n_unfrozen"] == "(0, 4)"
    assert [trial.state.name for trial in records.trials] == ["COMPLETE"]


def test_a_sweep_writes_into_its_store_only(swept, checkout):
    """And into the feature store; whatever else there is was there before."""
    assert sorted(path.name for path in checkout.iterdir()) == [".cache", "experiments", "nutclf"]
    # A killed process leaves a database's own logs beside it.
    names = {path.name.split(".db-")[0] for path in swept[0].folder.iterdir()} - {"mlflow"}
    assert names == {"artifacts", "locks", "mlflow.db", "optuna.db"}


def test_the_same_sweep_again_adds_nothing(cli, copy, nuts):
    done = cli("sweep", *QUICK, "--trials", 1, "--data", nuts, NUTCLF_STORE=copy.folder)
    assert done.returncode == 0, done.stderr
    assert "] trial " not in done.stdout
    assert "is champion already" in done.stdout
    assert len(copy.trials) == len(copy.of_trials) == 1


def test_a_sweep_on_changed_data_is_refused(cli, copy, tree):
    shutil.copy(tree / "train/almonds/0.png", tree / "train/almonds/another.png")
    done = cli("sweep", *QUICK, "--trials", 2, "--data", tree, NUTCLF_STORE=copy.folder)
    assert done.returncode == 2
    assert "data_fingerprint" in done.stderr
    assert "NAME=" in done.stderr
    assert len(copy.trials) == len(copy.of_trials) == 1


def test_promote_again_decides_the_same(cli, copy, nuts):
    done = cli("promote", "--study", "quick", "--data", nuts, NUTCLF_STORE=copy.folder)
    assert done.returncode == 0, done.stderr
    assert "is champion already" in done.stdout.splitlines()[-1]
    assert copy.of_trials[0].data.tags["test_openings"] == "1"


def test_predict_a_file_and_a_folder(cli, swept, nuts):
    done = cli(
        "predict", nuts / "test/pecans/0.png", nuts / "test/walnuts", NUTCLF_STORE=swept[0].folder
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + 4
    assert lines[0].startswith(f"{nuts}/test/pecans/0.png: ")
    assert all(name in lines[0] for name in ("almonds", "pecans", "walnuts"))


def test_predict_names_what_it_cannot_read_and_answers_the_rest(cli, swept, nuts, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no more")
    done = cli("predict", broken, nuts / "test/pecans/0.png", NUTCLF_STORE=swept[0].folder)
    assert done.returncode == 2
    assert done.stdout.startswith(f"{broken}: cannot be read, ")
    assert "test/pecans/0.png: " in done.stdout
    assert done.stderr == "nutclf: 1 file(s) could not be read; the reasons are above.\n"


def test_predict_takes_any_photograph(cli, swept, tmp_path):
    """Grey, and much wider than high; but not one that shows nothing."""
    grey, plain = tmp_path / "grey.png", tmp_path / "plain.png"
    Image.linear_gradient("L").resize((300, 40)).save(grey)
    done = cli("predict", grey, NUTCLF_STORE=swept[0].folder)
    assert done.returncode == 0, done.stderr
    Image.new("L", (300, 40), 128).save(plain)
    done = cli("predict", plain, NUTCLF_STORE=swept[0].folder)
    assert done.returncode == 2
    assert "it is one colour nearly everywhere" in done.stdout


def test_a_port_that_is_taken_is_told_before_an_address(cli, swept):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("ui", "--port", port, NUTCLF_STORE=swept[0].folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"nutclf: 127.0.0.1 port {port} cannot be listened on (Address")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def small_disk(tmp_path, request):
    """A file system of so many bytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_a_full_temporary_folder_is_named(checkout, cli_environ, small_disk, nuts, tmp_path):
    sweep = [sys.executable, "-m", "nutclf", "sweep", *QUICK, "--trials", "1", "--data", str(nuts)]
    environ = cli_environ(NUTCLF_STORE=tmp_path / "store", TMPDIR=small_disk)
    full = subprocess.run(
        sweep, check=False, cwd=checkout, env=environ, capture_output=True, text=True
    )
    assert full.returncode == 2, full.stderr
    assert re.match(f"nutclf: There is no room left .*{small_disk}: 0 MB free", full.stderr)
    assert full.stderr.count("\n") == 1
    (trial,) = Records(tmp_path / "store").trials[:1]
    assert trial.user_attrs["reason"] == "no room left on the disk"


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["6m"], indirect=True)  # the databases', not a model's
def test_a_full_disk_is_named_and_the_same_command_goes_on(cli, small_disk, nuts):
    sweep = ("sweep", *QUICK, "--trials", "1", "--data", nuts)
    full = cli(*sweep, NUTCLF_STORE=small_disk / "store")
    assert full.returncode == 2
    sentence = (
        f"nutclf: There is no room left \\({small_disk}/store: 0 MB free, .*what was finished is"
    )
    assert re.match(sentence, full.stderr)
    assert full.stderr.count("\n") == 1
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    done = cli(*sweep, NUTCLF_STORE=small_disk / "store")
    assert done.returncode == 0, done.stderr
    records = Records(small_disk / "store")
    assert [trial.state.name for trial in records.trials if trial.state.is_finished()][
        -1
    ] == "COMPLETE"
    assert "RUNNING" not in {run.info.status for run in records.runs}


def in_second_trial(records, deadline):
    """Waits until a trial behind the first has logged an epoch."""
    while time.monotonic() < deadline:
        running = [run for run in records.of_trials if run.info.status == "RUNNING"]
        if running and "valid_loss" in running[0].data.metrics:
            return
        time.sleep(0.2)
    raise TimeoutError("no second trial")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "last_words"),
    [(signal.SIGINT, 130, "What was finished is kept"), (signal.SIGTERM, 143, "")],
)
def test_a_signal_ends_a_sweep_and_keeps_what_is_finished(
    checkout, copy, nuts, cli_environ, number, code, last_words
):
    """The way a person runs it, without the tests' own parent process."""
    command = [
        sys.executable,
        "-m",
        "nutclf",
        "sweep",
        *QUICK,
        "--trials",
        "9",
        "--data",
        str(nuts),
    ]
    with subprocess.Popen(
        command,
        cwd=checkout,
        env=cli_environ(NUTCLF_STORE=copy.folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background inherit an ignored SIGINT, and pass it on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        try:
            in_second_trial(copy, time.monotonic() + 120)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert last_words in errors
    finished, stopped, queued = copy.trials
    states = (finished.state.name, stopped.state.name, queued.state.name)
    assert states == ("COMPLETE", "FAIL", "WAITING")
    assert stopped.user_attrs["reason"] == "interrupted"
    kept, closed = copy.of_trials
    assert (kept.info.status, closed.info.status) == ("FINISHED", "FAILED")
    assert closed.data.tags["reason"] == "interrupted"
    study = next(run for run in copy.runs if run.data.tags["kind"] == "study")
    assert study.info.status == "FINISHED", "at rest"
