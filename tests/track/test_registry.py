"""Versions and aliases of a registered model, and which run is a study's best."""

import pytest

from nutclf.config import Objective
from nutclf.track.registry import CHALLENGER, CHAMPION, Registry, best_run, model_uri
from nutclf.track.runs import study_run, trial_run

LOSS = Objective("best_valid_loss", "minimize")
ACCURACY = Objective("best_valid_accuracy", "maximize")
TAGS = {"data_fingerprint": "aa", "data_source": "photographs"}


@pytest.fixture
def registry(store):
    return Registry(store.client(), "nutclf")


@pytest.fixture
def version(store, registry):
    """Makes a version of a model that needs no files: the registry keeps addresses only."""
    run = study_run(store, store.experiment_id("nutclf"), "tiny", TAGS)

    def make(number):
        return registry.register(f"{store.folder.as_uri()}/{number}", run.run_id, {"of": "tiny"})

    return make


def finished(parent, number, metrics, state="COMPLETE"):
    run = trial_run(parent, f"t{number:03d}", number, TAGS)
    run.metrics(metrics)
    run.end(state)
    return run.run_id


@pytest.fixture
def parent(store):
    return study_run(store, store.experiment_id("nutclf"), "tiny", TAGS)


def test_a_model_is_registered_once(registry, version):
    assert registry.at(CHAMPION) is None
    first, again, other = version(1), version(1), version(2)
    assert [int(found.version) for found in (first, again, other)] == [1, 1, 2]
    assert len(registry.client.search_model_versions("name = 'nutclf'")) == 2
    assert again.tags == {"of": "tiny"}


def test_an_alias_moves(registry, version):
    first, second = version(1), version(2)
    for expected in (first, second):
        registry.point(CHAMPION, expected)
        assert registry.at(CHAMPION).version == expected.version
    assert registry.at(CHALLENGER) is None


def test_an_alias_that_is_not_where_it_was_moved_to_is_an_error(registry, version, monkeypatch):
    first, second = version(1), version(2)
    registry.point(CHAMPION, first)
    monkeypatch.setattr(
        type(registry.client), "set_registered_model_alias", lambda *arguments: None
    )
    with pytest.raises(RuntimeError, match="set to version 2, but the registry answers 1"):
        registry.point(CHAMPION, second)


def test_an_alias_of_a_deleted_version_points_nowhere(registry, version):
    registry.point(CHAMPION, version(1))
    registry.client.delete_model_version("nutclf", "1")
    assert registry.at(CHAMPION) is None


def test_the_description_and_its_tags_stay_with_the_version(registry, version):
    registry.describe(version(1), "Because it is better.", {"promotion": "champion"})
    found = registry.client.get_model_version("nutclf", "1")
    assert found.description == "Because it is better."
    assert found.tags["promotion"] == "champion"


@pytest.mark.parametrize(("objective", "best"), [(LOSS, 1), (ACCURACY, 2)])
def test_the_best_run_follows_the_objective(store, parent, objective, best):
    runs = [
        finished(parent, number, {"best_valid_loss": loss, "best_valid_accuracy": accuracy})
        for number, (loss, accuracy) in enumerate([(0.5, 0.8), (0.3, 0.7), (0.4, 0.9)])
    ]
    found = best_run(store.client(), store.experiment_id("nutclf"), "tiny", objective)
    assert found.info.run_id == runs[best]


def test_of_equal_runs_the_first_is_the_best(store, parent):
    runs = [finished(parent, number, {"best_valid_loss": 0.5}) for number in range(3)]
    found = best_run(store.client(), store.experiment_id("nutclf"), "tiny", LOSS)
    assert found.info.run_id == runs[0]
    with pytest.raises(LookupError, match="t000"):
        model_uri(store.client(), found)


@pytest.mark.parametrize("name", ["it's", 'say "nuts"', "Nüsse 🥜"])
def test_pruned_and_failed_runs_and_other_studies_are_never_the_best(store, parent, name):
    experiment = store.experiment_id("nutclf")
    finished(parent, 0, {"best_valid_loss": 0.1})
    named = study_run(store, experiment, name, TAGS)
    finished(named, 1, {"best_valid_loss": 0.1}, "PRUNED")
    finished(named, 2, {"best_valid_loss": 0.1}, "FAIL")
    assert best_run(store.client(), experiment, name, LOSS) is None
    run_id = finished(named, 0, {"best_valid_loss": 0.5})
    assert best_run(store.client(), experiment, name, LOSS).info.run_id == run_id
