"""One run as it is written: what is kept, cut, renamed and refused."""

import base64
import os
import re

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.keras import load_model as load_keras
from mlflow.models import get_model_info
from mlflow.pyfunc import load_model as load_pyfunc

from nutclf.data.reader import read_image
from nutclf.errors import UserError
from nutclf.model.network import predict
from nutclf.track.models import load_metadata, load_model, log_model
from nutclf.track.runs import STATUS, source_tags, study_run, trial_run

TAGS = {"data_fingerprint": "aa", "data_source": "photographs"}
SIDE = 32  # pixels, of the tiny network's input


@pytest.fixture
def parent(store):
    return study_run(store, store.experiment_id("nutclf"), "tiny", TAGS)


@pytest.fixture
def run(parent):
    return trial_run(parent, "t000", 0, TAGS)


def read(run):
    return run.client.get_run(run.run_id)


@pytest.mark.parametrize("kind", ["metrics", "params", "tags"])
def test_a_signal_within_a_write_is_heard_once_it_is_written(run, kind, struck):
    """Ctrl-C in the middle of a transaction would leave SQLite's file locked for `close`."""
    with pytest.raises(KeyboardInterrupt), struck("INSERT"):
        getattr(run, kind)({"struck": 1.0})
    assert "struck" in getattr(read(run).data, kind)
    with pytest.raises(KeyboardInterrupt), struck("UPDATE"):
        run.close("FINISHED")
    assert read(run).info.status == "FINISHED"


@pytest.mark.parametrize("name", ["tiny", "it's", 'say "nuts"', "Nüsse 🥜", "a\\b"])
def test_a_study_has_one_run_whatever_it_is_called(store, name):
    experiment = store.experiment_id("nutclf")
    first, again = (study_run(store, experiment, name, TAGS) for _ in range(2))
    assert first.run_id == again.run_id
    assert read(first).data.tags["study_name"] == name
    assert study_run(store, experiment, "other", TAGS).run_id != first.run_id


def test_a_study_whose_name_no_filter_can_hold_is_refused(store):
    with pytest.raises(UserError, match="both kinds of quotes"):
        study_run(store, store.experiment_id("nutclf"), """it's "it\"""", TAGS)


def test_a_trial_starts_as_running_below_its_study(parent, run):
    tags = read(run).data.tags
    assert read(run).info.status == tags["trial_state"] == "RUNNING"
    assert (tags["mlflow.parentRunId"], tags["study_name"]) == (parent.run_id, "tiny")
    assert tags.items() >= TAGS.items()


@pytest.mark.parametrize(("state", "status"), STATUS.items())
def test_a_run_ends_with_the_status_of_its_trial(run, state, status):
    run.end(state, "because")
    ended = read(run)
    assert (ended.info.status, ended.data.tags["trial_state"]) == (status, state)
    assert ended.data.tags["reason"] == "because"


def test_a_reason_longer_than_a_tag_is_cut(run):
    """MLflow refuses more than 8000 characters, and the run would stay open."""
    run.end("FAIL", "x" * 20_000)
    assert read(run).data.tags["reason"] == "x" * 4000


def test_the_three_ends_have_three_statuses():
    assert STATUS == {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("recall/brazil nuts", "recall/brazil nuts"),
        ("f1/Nüsse", "f1/Nüsse"),
        ("f1/nuts (raw), 50%", "f1/nuts -raw-- 50-"),
    ],
)
def test_a_class_name_becomes_a_key_that_mlflow_takes(run, name, key):
    run.metrics({name: 0.5})
    assert read(run).data.metrics == {key: 0.5}


def test_class_names_that_look_alike_to_mlflow_or_are_long_keep_keys_of_their_own(run):
    names = ("a?", "a*", "a-", "x" * 245 + "1", "x" * 245 + "2")
    run.metrics({f"valid_recall/{name}": number / 10 for number, name in enumerate(names)})
    kept = run.client.get_run(run.run_id).data.metrics
    assert sorted(kept.values()) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert max(map(len, kept)) <= 250
    assert kept["valid_recall/a-"] == 0.0


def test_none_is_a_param(run):
    run.params({"n_views": None, "rate": 1e-3, "depths": (0, 4)})
    assert read(run).data.params == {"n_views": "None", "rate": "0.001", "depths": "(0, 4)"}


def test_the_source_is_this_repository():
    tags = source_tags()
    assert re.fullmatch("[0-9a-f]{40}", tags["mlflow.source.git.commit"])
    assert tags["git_dirty"] in ("true", "false")
    assert tags["mlflow.user"]


def test_without_git_a_run_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    source_tags.cache_clear()
    tags = source_tags()
    source_tags.cache_clear()  # for the tests that follow
    assert tags["git_dirty"] == "unknown"
    assert "mlflow.source.git.commit" not in tags


@pytest.fixture(scope="module")
def network(tiny_whole):
    """The tiny network as it is saved, with a head for three classes."""
    return tiny_whole


@pytest.fixture
def logged(store, run, network, tmp_path, monkeypatch):
    """Address of a model that was logged from an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    # As MLflow is in a process that never heard of our store: its default is the current folder.
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    store.use()
    metadata = {"classes": ["pecans", "almonds", "walnuts"], "image_size": SIDE}
    return log_model(run, network, metadata)


def test_to_log_a_model_writes_nothing_into_the_current_folder(logged, store):
    load_model(store, logged)
    assert os.listdir() == []
    assert len(list(store.folder.glob("artifacts/nutclf/models/*/artifacts/data/model.keras"))) == 1


def test_a_model_belongs_to_its_run_under_the_name_model(logged, run, store):
    (output,) = read(run).outputs.model_outputs
    assert logged == f"models:/{output.model_id}"
    found = store.client().get_logged_model(output.model_id)
    assert (found.name, found.source_run_id, found.status) == ("model", run.run_id, "READY")


def test_the_signature_asks_for_text_under_the_name_image(logged):
    signature = get_model_info(logged).signature
    (image,) = signature.inputs.inputs
    assert (image.name, str(image.type)) == ("image", "DataType.string")
    answer = ["answer", "label", "confidence", "probabilities", "top3", "familiarity", "nearest"]
    assert signature.outputs.input_names() == answer


def test_the_same_version_takes_pixels_through_keras_and_photographs_through_pyfunc(
    logged, network, nuts
):
    file = nuts / "valid" / "pecans" / "0.png"
    pixels = read_image(file, SIDE)[None]
    expected = predict(network, pixels)
    np.testing.assert_array_equal(predict(load_keras(logged), pixels), expected)
    text = base64.b64encode(file.read_bytes()).decode()
    (answer,) = load_pyfunc(logged).predict(pd.DataFrame({"image": [text]}))
    assert list(answer["probabilities"]) == ["pecans", "almonds", "walnuts"]
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected[0], atol=1e-6)


def test_pixels_are_refused_by_the_interface_for_photographs(logged):
    """Whatever their scale: those from 0 to 1 would be taken for night, without a word."""
    model = load_pyfunc(logged)
    for pixels in (np.full((1, 40, 60, 3), 200, np.uint8), np.zeros((1, 40, 60, 3), np.float32)):
        with pytest.raises(mlflow.exceptions.MlflowException, match="Failed to enforce schema"):
            model.predict(pixels)


def test_the_order_of_the_classes_is_read_from_the_model(logged, store):
    assert load_metadata(store, logged)["classes"] == ["pecans", "almonds", "walnuts"]


def test_the_requirements_are_pinned_and_this_package_is_none_of_them(logged, store):
    (requirements,) = store.folder.rglob("requirements.txt")
    lines = requirements.read_text().splitlines()
    assert all("==" in line for line in lines)
    assert {line.partition("==")[0] for line in lines} >= {
        "keras", "mlflow", "pillow", "tensorflow",
    }  # fmt: skip
    assert "nutclf" not in requirements.read_text()


def test_a_model_comes_back_as_it_was(logged, store, network):
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 40, 3), np.uint8)
    again = load_model(store, logged)
    np.testing.assert_array_equal(predict(again, images), predict(network, images))
    assert np.ptp(predict(network, images), axis=0).max() > 1e-3, "images differ for the network"
