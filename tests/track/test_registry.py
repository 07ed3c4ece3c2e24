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


def test_an_alias_of_a_model_that_is_not_there_is_nobody(registry):
    assert registry.at(CHAMPION) is None
    assert registry.version_of("models:/m-1") is None


def test_a_model_is_registered_once(registry, version):
    first, again, other = version(1), version(1), version(2)
    assert [int(found.version) for found in (first, again, other)] == [1, 1, 2]
    assert len(registry.client.search_model_versions("name = 'nutclf'")) == 2
    assert again.tags == {"of": "tiny"}


def test_an_alias_moves(registry, version):
    first, second = version(1), version(2)
    registry.point(CHAMPION, first)
    assert registry.at(CHAMPION).version == first.version
    registry.point(CHAMPION, second)
    assert registry.at(CHAMPION).version == second.version != first.version
    assert registry.at(CHALLENGER) is None


def test_an_alias_is_dropped_whether_or_not_it_is_there(registry, version):
    registry.point(CHALLENGER, version(1))
    for _ in range(2):
        registry.drop(CHALLENGER)
    assert registry.at(CHALLENGER) is None


def test_an_alias_of_a_deleted_version_is_nobody(registry, version):
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


def test_pruned_and_failed_runs_and_other_studies_are_never_the_best(store, parent):
    result = finished(parent, 0, {"best_valid_loss": 0.5})
    finished(parent, 1, {"best_valid_loss": 0.1}, "PRUNED")
    finished(parent, 2, {"best_valid_loss": 0.1}, "FAIL")
    experiment = store.experiment_id("nutclf")
    finished(study_run(store, experiment, "tiny2", TAGS), 0, {"best_valid_loss": 0.1})
    assert best_run(store.client(), experiment, "tiny", LOSS).info.run_id == result


@pytest.mark.parametrize("name", ["it's", 'say "nuts"', "Nüsse 🥜"])
def test_the_best_run_is_found_whatever_the_study_is_called(store, name):
    experiment = store.experiment_id("nutclf")
    run_id = finished(study_run(store, experiment, name, TAGS), 0, {"best_valid_loss": 0.5})
    assert best_run(store.client(), experiment, name, LOSS).info.run_id == run_id


def test_a_study_without_results_has_no_best_run(store, parent):
    finished(parent, 0, {"best_valid_loss": 0.1}, "FAIL")
    assert best_run(store.client(), store.experiment_id("nutclf"), "tiny", LOSS) is None


def test_a_run_without_a_model_has_no_address(store, parent):
    run = store.client().get_run(finished(parent, 0, {"best_valid_loss": 0.1}))
    with pytest.raises(LookupError, match="t000"):
        model_uri(store.client(), run)
