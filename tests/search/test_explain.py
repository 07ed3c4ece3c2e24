"""A study's pages in MLflow, written after its trials; and that they can fail by themselves."""

import json
from dataclasses import asdict, replace

import numpy as np
import optuna
import pytest
from PIL import Image

from nutclf.config import OBJECTIVES
from nutclf.search import explain as module
from nutclf.search.explain import explain, importances, write_plots
from nutclf.search.study import flatten
from nutclf.track.studies import read_study

NOTE = "mlflow.note.content"
PLOTS = {"history.html", "importances.html", "parallel_coordinate.html", "slice.html"}


@pytest.fixture(scope="module")
def config(tiny_config):
    return replace(tiny_config, name="promoted")


@pytest.fixture(scope="module")
def explained(with_champion, copy_store, tmp_path_factory, config, source):
    """A copy of the promoted study, explained twice without a complaint."""
    store = copy_store(with_champion.folder, tmp_path_factory.mktemp("explained") / "store")
    fingerprint, said = source.data.fingerprint, []
    run = read_study(store, "nutclf", config, fingerprint).run
    run.params(flatten(asdict(config)))  # as a sweep does
    explain(store, config, source, said.append, "make sweep STUDY=tiny")
    with pytest.MonkeyPatch.context() as patch:  # what a run predicted never changes
        patch.setattr("nutclf.track.pictures.read_image", None)
        explain(store, config, source, said.append)
    assert said == []
    return store, read_study(store, "nutclf", config, fingerprint)


def test_the_note_says_what_won_how_sure_that_is_and_how_to_make_it_again(explained):
    store, record = explained
    note, best = record.tags[NOTE], record.best
    for said in (
        f"**Best so far: {best.name}**, best_valid_loss {best.value:.4f}",
        f"accuracy on the valid split {best.accuracy}",
        "is champion: there was none before",
        "Alias now: `champion`",
        "make sweep STUDY=tiny",
        "tensorflow 2.",
        "1 finished trial(s); it takes 2",
    ):
        assert said in note
    assert len(note) < 4000, "a longer tag is cut"
    experiment = store.client().get_experiment_by_name("nutclf")
    assert "networks on photographs" in experiment.tags[NOTE]


def test_the_best_trial_has_its_pictures(explained):
    run = explained[1].best_run
    folder = run.client.download_artifacts(run.run_id, "evaluation")
    for name in ("mistakes.png", "gradcam.png"):
        with Image.open(f"{folder}/{name}") as picture:
            assert picture.width > 1000
    with open(f"{folder}/gradcam.json", encoding="utf-8") as file:
        maps = json.load(file)
    assert {"path", "y_true", "y_pred", "confidence", "heat"} == set(maps[0])
    assert np.shape(maps[0]["heat"]) == (3, 3)


def test_a_failure_is_one_line(explained, config, source, monkeypatch):
    def broken(*_):
        raise OSError("No space left\non device.")

    monkeypatch.setattr(module, "write_plots", broken)
    said = []
    explain(explained[0], config, source, said.append)
    assert said == [
        "Notes and pictures of study 'promoted' are not up to date: No space left on device."
    ]


def study_of(n):
    """A complete trial for each of 0, 0.05, ...: the rate makes it, the schedule does not."""
    study = optuna.create_study(direction="minimize")
    ranges = {
        "learning_rate": optuna.distributions.FloatDistribution(0, 1),
        "lr_schedule": optuna.distributions.CategoricalDistribution(["step", "cosine"]),
    }
    for i in range(n):
        params = {"learning_rate": i / 20, "lr_schedule": ("step", "cosine")[i % 2]}
        study.add_trial(
            optuna.trial.create_trial(value=i / 20, params=params, distributions=ranges)
        )
    return study


@pytest.mark.parametrize(
    ("n", "left_out"), [(0, PLOTS), (1, PLOTS), (19, {"importances.html"}), (20, set())]
)
def test_plots_are_pages_that_need_no_network_or_a_sentence(tmp_path, recwarn, n, left_out):
    found = write_plots(study_of(n), OBJECTIVES["valid"], tmp_path)
    assert set(found) == left_out
    assert all(f"{n} finished trial" in reason for reason in found.values())
    pages = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert set(pages) == PLOTS - left_out
    for page in pages.values():
        assert "<script src" not in page
        assert "plotly.js v" in page, "the library itself"
        assert "best_valid_loss" in page
    assert not recwarn.list


def test_what_makes_the_value_counts_most():
    found = importances(study_of(20))
    assert next(iter(found)) == "learning_rate"
    assert sum(found.values()) == pytest.approx(1)
    assert found["learning_rate"] > 0.9
    assert importances(study_of(19)) == {}, "noise, mostly"
