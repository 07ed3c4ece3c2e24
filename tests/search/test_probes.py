"""Probes come first: linear models of the frozen network, which a study's trials have to beat."""

from dataclasses import replace

import numpy as np
import pytest

from nutclf.config import OBJECTIVES, PROBES, View
from nutclf.search.driver import Driver
from nutclf.search.engines import ThisProcess
from nutclf.search.trial import OpenStudy
from nutclf.serve.export import best_of_one_view
from nutclf.track.evaluation import stored_predictions
from nutclf.track.models import load_metadata, load_model
from nutclf.track.promotion import promote
from nutclf.track.registry import best_run, model_uri
from nutclf.track.runs import Run
from nutclf.track.studies import read_study

TTA = ((View(),), (View(0.875),), (View(0.875), View(0.75, mirrored=True)))


@pytest.fixture(scope="module")
def cv_config(tiny_config):
    valid = {"name": "probed", "n_folds": 4, "tta": TTA, "blend": (0.5,)}
    return replace(tiny_config, objective=OBJECTIVES["cv"], **valid)


@pytest.fixture(scope="module")
def probed(tmp_path_factory, migrated, copy_store, begin, cv_config):
    """A store with a study of the probes and one trial, and what was said; only to be read."""
    store = copy_store(migrated, tmp_path_factory.mktemp("probed") / "store")
    study, said = begin(store, cv_config), []
    driver = Driver(study, ThisProcess(), said.append)
    driver.fit_probes()
    driver.run_trials(1)
    return store, study, said


def runs_of(study: OpenStudy, kind: str):
    found = study.run.client.search_runs([study.run.study[0]], f"tags.kind = '{kind}'")
    return sorted(found, key=lambda run: run.info.start_time)


def test_each_probe_is_a_finished_run_with_its_figures_and_a_model(probed):
    store, study, said = probed
    runs = runs_of(study, "probe")
    assert [run.data.params["probe"] for run in runs] == list(PROBES)
    assert said[0].startswith("First linear models")
    for run, line in zip(runs, said[1:], strict=False):
        table = stored_predictions(Run(store.client(), run.info.run_id), "cv")
        accuracy = (table["y_true"] == table["y_pred"]).mean()
        assert run.info.status == "FINISHED"
        assert run.data.metrics["cv_accuracy"] == pytest.approx(accuracy)
        assert f"probe {run.data.params['probe']}: cv_accuracy {accuracy:.3f}" in line
        assert {"valid_macro_f1", "best_valid_accuracy", "answers_per_second"} <= set(
            run.data.metrics
        )
        model = load_model(store, model_uri(store.client(), run))
        assert model.output_shape == (None, 3)


def test_a_trial_may_answer_together_with_a_probe_and_says_how(probed):
    store, study, _ = probed
    (run,) = runs_of(study, "trial")
    assert run.data.params["ensemble"] in map(str, study.config.ensembles)
    metadata = load_metadata(store, model_uri(store.client(), run))
    assert metadata["ensemble"] == run.data.params["ensemble"]
    assert View(**metadata["one_view"]) in (View(), View(0.875))
    metrics = run.data.metrics
    assert {"cv_accuracy", "cv_accuracy_one_view", "cv_accuracy_whole"} <= metrics.keys()


def test_a_trial_is_raced_against_a_probe_with_that_probe_beside_it(
    store, begin, cv_config, run_trial
):
    """One that knows next to nothing says what the probe says: alone it would be stopped."""
    study = begin(store, cv_config)
    Driver(study, ThisProcess(), lambda line: None).fit_probes()
    assert study.leader.value > 0.6
    run_trial(study)
    learned = {"n_unfrozen": 0, "dropout_rate": 0.5, "epochs": 1, "lr_schedule": "constant"}
    study.optuna.enqueue_trial(learned | {"learning_rate": 1e-6})
    n_trials = len(study.optuna.get_trials())
    while (ended := run_trial(study)).number < n_trials - 1:
        pass
    assert ended.state == "COMPLETE", ended
    run = runs_of(study, "trial")[-1]
    # So it is the probe that a phone gets.
    assert run.data.metrics["cv_accuracy"] > run.data.metrics["cv_accuracy_one_view"] + 0.2
    assert best_of_one_view(store.client(), run).data.tags["kind"] == "probe"


def test_probes_are_recorded_once_and_what_is_recorded_leads_the_next_sweep(
    probed, begin, copy_store, tmp_path, cv_config
):
    store = copy_store(probed[0].folder, tmp_path / "store")
    study, said = begin(store, cv_config), []
    Driver(study, ThisProcess(), said.append).fit_probes()
    assert (len(runs_of(study, "probe")), said) == (3, [])
    assert [probe.name for probe in study.probes] == list(PROBES)
    best = best_run(store.client(), study.run.study[0], "probed", cv_config.objective)
    table = stored_predictions(Run(store.client(), best.info.run_id), "cv")
    assert study.leader.value == best.data.metrics["cv_accuracy"]
    right = (table["y_true"] == table["y_pred"]).to_numpy()
    np.testing.assert_array_equal(study.leader.right, right)


def test_probes_stand_in_the_ranking_and_the_best_of_all_is_promoted(
    probed, copy_store, tmp_path, cv_config, load_split, source
):
    store = copy_store(probed[0].folder, tmp_path / "store")
    client, fingerprint = store.client(), source.data.fingerprint
    # As if the trial had failed at its task: the probe has to be taken.
    (trial,) = runs_of(probed[1], "trial")
    client.log_metric(trial.info.run_id, "cv_accuracy", 0.1)
    record = read_study(store, "nutclf", cv_config, fingerprint)
    assert [one.number for one in record.ranking] == [None, None, None, 0]
    assert record.counts == "1 complete"
    done = promote(store, "nutclf", "probed", cv_config.objective, load_split, fingerprint, dict)
    assert "probe · " in done.reason and "It is a probe: no trial did better." in done.reason
    assert load_model(store, done.uri).output_shape == (None, 3)


def test_a_promoted_trial_is_compared_with_the_best_probe(
    probed, copy_store, tmp_path, cv_config, load_split, source
):
    store = copy_store(probed[0].folder, tmp_path / "store")
    (trial,) = runs_of(probed[1], "trial")
    store.client().log_metric(trial.info.run_id, "cv_accuracy", 1.1)
    fingerprint = source.data.fingerprint
    done = promote(store, "nutclf", "probed", cv_config.objective, load_split, fingerprint, dict)
    assert "On the same 24 images it is right on" in done.reason
    assert "and the best probe (" in done.reason


def test_under_the_published_protocol_probes_are_judged_by_the_valid_split(
    store, begin, tiny_config
):
    study, said = begin(store, tiny_config), []
    Driver(study, ThisProcess(), said.append).fit_probes()
    runs = runs_of(study, "probe")
    assert len(runs) == 3
    assert all("cv_accuracy" not in run.data.metrics for run in runs)
    assert said[1].startswith("probe logistic regression: best_valid_loss ")
    assert study.leader is None, "epochs are raced against the median"
