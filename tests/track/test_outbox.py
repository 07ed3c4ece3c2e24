"""Records of an absent MLflow server: a real one, stopped and started again."""

import time

import keras
import numpy as np
import pytest

from nutclf.errors import UserError
from nutclf.track.models import load_metadata, load_model, open_outbox
from nutclf.track.models import log_model as log
from nutclf.track.outbox import Outbox
from nutclf.track.registry import model_uri
from nutclf.track.runs import study_run, trial_run

TAGS = {"data_fingerprint": "f" * 64, "data_source": "drawn"}


@pytest.mark.slow
def test_what_an_absent_server_misses_is_delivered_when_it_is_back(server, remote):
    pixels = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(pixels)
    model = keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(pooled))
    with server():
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
    with server():
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


def test_a_server_that_never_was_is_refused_at_once(remote):
    with pytest.raises(UserError, match="does not answer as it should"):
        remote.prepare()


def test_a_refusal_is_no_absence(store):
    run = study_run(store, store.experiment_id("nutclf"), "here", TAGS)
    box = Outbox(store.folder / "outbox", {})
    with pytest.raises(ValueError, match="no"):
        box.send(store.client(), run.run_id, "tags", {}, lambda run_id: _refuse())
    assert box.waiting() == 0


def _refuse():
    raise ValueError("no")
