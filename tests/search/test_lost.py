"""What was deleted between two commands is named, restored where it can be, and never doubled."""

import shutil
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from nutclf.errors import UserError
from nutclf.search.doctor import examine
from nutclf.search.driver import sweep
from nutclf.search.engines import ThisProcess
from nutclf.track.studies import read_study

NO_CHAMPION = (  # a sweep as here is not followed by promotion
    "alias: 'nutclf' has trained models and no champion; `make promote` with the STUDY and DATA of "
    "a sweep chooses one."
)


@pytest.fixture(scope="module")
def config(tiny_config):
    """A study none of whose trials fails."""
    return replace(tiny_config, space=replace(tiny_config.space, learning_rate=(1e-3, 1e-2)))


@pytest.fixture(scope="module")
def swept(migrated, copy_store, tmp_path_factory, source, features, config):
    """A store with a study of two trials."""
    store = copy_store(migrated, tmp_path_factory.mktemp("swept") / "store")
    _sweep(store, config, source, features, 2)
    return store


def _sweep(store, config, source, features, n_trials):
    said = []
    limits = {"n_trials": n_trials, "weights": "random"}
    sweep(config, source, store, features, ThisProcess(), said.append, **limits)
    return "\n".join(said)


@pytest.fixture
def again(swept, copy_store, tmp_path, config, source, features):
    """The same sweep again on a copy of the store: `again(n_trials)`, what it said."""

    def again(n_trials=2):
        return _sweep(again.store, config, source, features, n_trials)

    again.store = copy_store(swept.folder, tmp_path / "store")
    return again


@pytest.fixture
def runs(again):
    """The runs of study and trials by number, None for the study's, those that are not deleted."""

    def runs():
        experiment = again.store.experiment_id("nutclf")
        kinds = "tags.kind != 'seed' AND tags.kind != 'probe'"
        found = again.store.client().search_runs([experiment], kinds)
        numbers = [run.data.tags.get("trial_number") for run in found]
        assert len(numbers) == len(set(numbers)), "one run for each"
        return {number and int(number): run for number, run in zip(numbers, found, strict=True)}

    return runs


@pytest.fixture
def visit(again, tmp_path):
    """What the doctor says: `visit(fix)`."""

    def visit(fix=False):
        said = []
        examine(again.store, tmp_path / "none", fix, said.append)
        return "\n".join(said)

    return visit


def parents(runs):
    trials = [run for number, run in runs.items() if number is not None]
    return {run.data.tags["mlflow.parentRunId"] for run in trials}


def test_where_nothing_is_gone_nothing_is_said(again, visit):
    assert "note:" not in again()
    assert visit() == NO_CHAMPION


def test_a_study_whose_run_was_deleted_is_refused_restored_and_goes_on(
    again, runs, visit, config, source
):
    before = runs()
    own = before[None].info.run_id
    again.store.client().delete_run(own)
    with pytest.raises(
        UserError, match="was deleted in MLflow; restore it with `make doctor FIX=1`"
    ):
        read_study(again.store, "nutclf", config, source.data.fingerprint)
    assert "lost: the run of study 'tiny' was deleted in MLflow." in visit()
    assert "1 restored" in visit(fix=True)
    assert visit() == NO_CHAMPION
    again.store.client().delete_run(own)
    again(3)
    assert runs()[None].info.run_id == own
    assert parents(runs()) == {own}
    assert len(runs()) == len(before) + 1


def test_one_that_was_erased_is_made_again_and_has_its_trials(again, runs):
    own = runs()[None].info.run_id
    again.store.client().set_tag(own, "study_name", "another")  # as gone as after `mlflow gc`
    again(3)
    again.store.client().delete_run(own)
    found = runs()
    assert parents(found) == {found[None].info.run_id} != {own}
    assert set(found) == {None, 0, 1, 2}


def test_a_trial_whose_run_was_deleted_counts_and_can_be_restored(again, runs, visit):
    deleted = runs()[1].info.run_id
    again.store.client().delete_run(deleted)
    said = again(3)
    assert "note: study 'tiny' has results of trial 1 in Optuna, and no run of it in MLflow" in said
    assert set(runs()) == {None, 0, 2}
    assert "trial 1 in Optuna" in visit()
    visit(fix=True)
    assert runs()[1].info.run_id == deleted
    assert "trial 1" not in visit()


def test_with_all_of_them_gone_a_sweep_says_the_way_out(again, runs):
    for number, run in runs().items():
        if number is not None:
            again.store.client().delete_run(run.info.run_id)
    with pytest.raises(UserError, match=r"results of trial 0, 1 .*FIX=1` restores it, or .*NAME="):
        again(3)


def test_without_optunas_records_no_trial_is_made_twice(again, runs, visit):
    (again.store.folder / "optuna.db").unlink()
    with pytest.raises(
        UserError, match=r"runs of trial 0, 1 in MLflow, unknown to Optuna; put the"
    ):
        again()
    assert not (again.store.folder / "optuna.db").exists()
    assert len(runs()) == 3
    assert "unknown to Optuna" in visit(fix=True)


def test_an_experiment_that_was_deleted_is_refused_and_restored(again, runs, visit):
    store = again.store
    store.client().delete_experiment(store.experiment_id("nutclf"))
    with pytest.raises(UserError, match=r"'nutclf' was deleted in MLflow; restore .*FIX=1"):
        again()
    assert "lost: experiment 'nutclf' was deleted" in visit()
    visit(fix=True)
    assert len(runs()) == 3
    assert "note:" not in again()


def test_without_mlflows_records_the_doctor_says_so(again, visit):
    for file in again.store.folder.glob("mlflow.db*"):
        file.unlink()
    assert "study 'tiny' is in Optuna's records, and no run of it in MLflow's; put" in visit()


def test_a_study_whose_files_are_gone_is_told_apart(again, runs, config, source):
    folder = Path(runs()[0].info.artifact_uri.removeprefix("file://"))
    shutil.rmtree(folder.parent.parent)
    with pytest.raises(UserError, match=r"The files of t00\d .* are gone from .*; put them back"):
        read_study(again.store, "nutclf", config, source.data.fingerprint)


def test_one_thing_that_is_gone_does_not_hide_another(again, runs, visit):
    again.store.client().delete_run(runs()[None].info.run_id)
    elsewhere = optuna.create_study(storage=again.store.optuna_url, study_name="elsewhere")
    elsewhere.tell(elsewhere.ask(), 1.0)
    said = visit()
    assert "the run of study 'tiny' was deleted in MLflow" in said
    assert "study 'elsewhere' is in Optuna's records, and no run of it in MLflow's" in said


def test_a_sweep_that_was_killed_before_its_first_run_lost_nothing(again, visit):
    optuna.create_study(storage=again.store.optuna_url, study_name="begun").ask()
    assert "lost:" not in visit()
