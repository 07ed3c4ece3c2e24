"""A logged model: one file, two interfaces, and what is kept beside it."""

import base64
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.keras import load_model as load_keras
from mlflow.pyfunc import load_model as load_pyfunc

from nutclf.data.reader import read_image
from nutclf.model.network import predict
from nutclf.serve.photographs import _load_pyfunc
from nutclf.track.models import load_metadata, load_model, log_model
from nutclf.track.runs import study_run, trial_run

SIDE = 32  # pixels, of the tiny network's input
METADATA = {"classes": ["pecans", "almonds", "walnuts"], "image_size": SIDE}


@pytest.fixture(scope="module")
def network(tiny_whole):
    return tiny_whole


@pytest.fixture
def run(store, tmp_path, monkeypatch):
    """Of a store that MLflow's own settings point at, from an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tags = {"data_fingerprint": "aa", "data_source": "photographs"}
    store.use()
    parent = study_run(store, store.experiment_id("nutclf"), "tiny", tags)
    return trial_run(parent, "t000", 0, tags)


def folder_of(store):
    (folder,) = store.folder.glob("artifacts/nutclf/models/m-*/artifacts")
    return folder


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_file_is_kept_byte_for_byte_and_not_opened(run, store, tmp_path, monkeypatch, as_bytes):
    file = tmp_path / "network.keras"
    file.write_bytes(b"not even a network")
    log_model(run, file.read_bytes() if as_bytes else file, METADATA)
    assert (folder_of(store) / "data" / "model.keras").read_bytes() == b"not even a network"


def test_a_model_is_its_runs_and_comes_back_as_it_was(run, store, network):
    uri = log_model(run, network, METADATA)
    (output,) = run.client.get_run(run.run_id).outputs.model_outputs
    assert uri == f"models:/{output.model_id}"
    found = run.client.get_logged_model(output.model_id)
    assert (found.name, found.source_run_id, found.status) == ("model", run.run_id, "READY")
    assert load_metadata(store, uri) == METADATA
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 40, 3), np.uint8)
    expected = predict(network, images)
    np.testing.assert_array_equal(predict(load_model(store, uri), images), expected)
    assert np.ptp(expected, axis=0).max() > 1e-3, "images differ for the network"
    assert not list(Path.cwd().iterdir()), "nothing is written into the current folder"


def test_one_version_takes_pixels_through_keras_and_photographs_through_pyfunc(
    run, store, network, nuts
):
    uri = log_model(run, network, METADATA)
    file = nuts / "valid" / "pecans" / "0.png"
    pixels = read_image(file, SIDE)[None]
    expected = predict(network, pixels)
    np.testing.assert_array_equal(predict(load_keras(uri), pixels), expected)
    photographs = pd.DataFrame({"image": [base64.b64encode(file.read_bytes()).decode()]})
    answers = load_pyfunc(uri).predict(photographs)
    assert list(answers[0]["probabilities"]) == METADATA["classes"]
    np.testing.assert_allclose(list(answers[0]["probabilities"].values()), expected[0], atol=1e-6)
    # Models of earlier versions hand their folder to the loader.
    assert _load_pyfunc(str(folder_of(store))).predict(photographs) == answers
    with pytest.raises(mlflow.exceptions.MlflowException, match="Failed to enforce schema"):
        load_pyfunc(uri).predict(pixels)


def test_the_requirements_are_pinned_and_this_package_is_none_of_them(run, store):
    log_model(run, b"", METADATA)
    lines = (folder_of(store) / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines)
    names = {line.partition("==")[0] for line in lines}
    assert names >= {"keras", "mlflow", "pillow", "tensorflow"}
    assert "nutclf" not in names


def test_the_description_is_that_of_mlflows_own_keras_models(run, store, network, tmp_path):
    """`mlflow.keras.save_model` takes a network, not a file; what it writes is written for it."""
    log_model(run, network, METADATA)
    signature = mlflow.models.infer_signature(np.zeros((1, 8, 8, 3), np.uint8))
    mlflow.keras.save_model(
        network, str(tmp_path / "theirs"), signature=signature, pip_requirements=[]
    )
    ours, theirs = (
        mlflow.models.Model.load(str(folder / "MLmodel")).flavors["keras"]
        for folder in (folder_of(store), tmp_path / "theirs")
    )
    assert ours == theirs
    assert ours["keras_version"] == keras.__version__
