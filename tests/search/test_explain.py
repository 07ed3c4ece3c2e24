"""A study's pages in MLflow once it is at rest; and that they can fail without failing anything."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from nutclf.search import explain as module
from nutclf.search.explain import explain
from nutclf.search.study import flatten
from nutclf.track.studies import read_study

NOTE = "mlflow.note.content"


@pytest.fixture(scope="module")
def config(tiny_config):
    return replace(tiny_config, name="promoted")


@pytest.fixture(scope="module")
def explained(with_champion, copy_store, tmp_path_factory, config, source):
    """A copy of the promoted study, explained twice; and what was said meanwhile."""
    store = copy_store(with_champion.folder, tmp_path_factory.mktemp("explained") / "store")
    fingerprint, said = source.data.fingerprint, []
    run = read_study(store, "nutclf", config, fingerprint).run
    run.params(flatten(asdict(config)))  # as a session does
    explain(store, config, source, said.append, "make sweep STUDY=tiny")
    explain(store, config, source, said.append)
    return store, read_study(store, "nutclf", config, fingerprint), said


def fetched(run, path):
    return run.client.download_artifacts(run.run_id, path)


def test_all_of_it_is_done_in_silence(explained):
    assert explained[2] == []


def test_the_note_says_what_won_how_sure_that_is_and_how_to_make_it_again(explained):
    _, record, _ = explained
    note, best = record.tags[NOTE], record.best
    assert f"**Best so far: {best.name}**, best_valid_loss {best.value:.4f}" in note
    assert f"accuracy on the valid split {best.accuracy}" in note
    assert "is champion: there was none before" in note
    assert "Alias now: `champion`" in note
    assert "make sweep STUDY=tiny" in note
    assert "tensorflow 2." in note
    assert "1 finished trial(s); it takes 2" in note
    assert len(note) < 4000, "a longer tag is cut"


def test_the_experiment_says_what_it_holds(explained):
    store, _, _ = explained
    tags = store.client().get_experiment_by_name("nutclf").tags
    assert "photographs of tree nuts" in tags[NOTE]


def test_the_best_trial_has_its_pictures(explained):
    _, record, _ = explained
    run = record.best_run
    for name in ("mistakes.png", "gradcam.png"):
        with Image.open(fetched(run, f"evaluation/{name}")) as picture:
            assert picture.width > 1000
    with open(fetched(run, "evaluation/gradcam.json"), encoding="utf-8") as file:
        maps = json.load(file)
    assert {"path", "y_true", "y_pred", "confidence", "heat"} == set(maps[0])
    assert np.shape(maps[0]["heat"]) == (3, 3)


def test_pictures_are_drawn_once(explained, config, source, monkeypatch):
    """What a run predicted never changes, and reading the images costs."""
    store, _, _ = explained
    monkeypatch.setattr("nutclf.track.pictures.read_image", None)
    said = []
    explain(store, config, source, said.append)
    assert said == []


def test_a_failure_is_one_line(explained, config, source, monkeypatch):
    def broken(*_):
        raise OSError("No space left\non device.")

    monkeypatch.setattr(module, "write_plots", broken)
    said = []
    explain(explained[0], config, source, said.append)
    assert said == [
        "Notes and pictures of study 'promoted' are not up to date: No space left on device."
    ]
