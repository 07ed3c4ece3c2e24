"""Cross-validation of a trial: nobody judges an image that it has learnt from."""

from dataclasses import replace

import numpy as np
import optuna
import pytest
from mlflow.models import get_model_info

from nutclf.config import OBJECTIVES
from nutclf.errors import UserError
from nutclf.evaluate.calibration import recalibrate
from nutclf.evaluate.temperature import Confidence
from nutclf.search.crossval import BLOCKS_PER_FOLD, cross_validate
from nutclf.search.session import make_folds
from nutclf.search.sweep import pruner_for
from nutclf.search.trial import RUN_ID, TrialRunner
from nutclf.track.evaluation import stored_predictions
from nutclf.track.registry import model_uri
from nutclf.track.runs import Run

K = 4


@pytest.fixture(scope="module")
def cv_config(tiny_config):
    return replace(tiny_config, objective=OBJECTIVES["cv"], n_folds=K)


@pytest.fixture(scope="module")
def folds(cv_config, bench):
    return make_folds(cv_config, bench.splits["train"])


@pytest.fixture(scope="module")
def found(cv_config, bench, folds):
    heard = []
    learner = bench.learner(cv_config.baseline)
    result = cross_validate(bench, learner, folds, lambda *fold: heard.append(fold))
    return result, heard


def test_every_training_image_is_predicted_once_by_the_fold_that_holds_it_out(found, folds, bench):
    table, train = found[0].table, bench.splits["train"]
    assert table["path"].tolist() == list(train.paths)
    assert table["fold"].tolist() == folds.tolist()
    assert sorted(set(folds)) == list(range(K))


def test_a_fold_is_predicted_by_a_model_that_never_saw_it(found, folds, bench, cv_config):
    # The same fit by hand, on a learner of its own: equal to the last bit.
    learner = bench.learner(cv_config.baseline)
    bench.fit(learner, np.flatnonzero(folds != 2))
    alone = bench.predict(learner, "train", np.flatnonzero(folds == 2))
    table = found[0].table
    recorded = table[table["fold"] == 2][list(bench.classes)].to_numpy()
    np.testing.assert_allclose(recorded, alone, atol=1e-6)


def test_the_accuracy_is_that_of_all_images_together(found):
    result, _ = found
    right = (result.table["y_true"] == result.table["y_pred"]).mean()
    assert result.accuracy == pytest.approx(right)
    assert len(result.fold_accuracies) == K


def test_each_fold_reports_its_blocks_in_order(found):
    result, heard = found
    assert [fold for fold, _ in heard] == list(range(K))
    for (_, blocks), accuracy in zip(heard, result.fold_accuracies, strict=True):
        assert len(blocks) == 6  # as many as the fold has images, where those are fewer than 8
        assert np.mean(blocks) == pytest.approx(accuracy)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, migrated, copy_store, begin, cv_config, bench, data_facts, folds):
    """A cross-validated trial: its store, study and run."""
    store = copy_store(migrated, tmp_path_factory.mktemp("cv") / "store")
    study, plain = begin(store, cv_config)
    runner = TrialRunner(cv_config, bench, data_facts, plain._parent, folds)
    outcome = runner.run(study, study.ask())
    assert outcome.state == "COMPLETE", outcome.summary
    client = store.client()
    return study, runner, client.get_run(study.get_trials()[0].user_attrs[RUN_ID]), client


def test_the_objective_is_the_cross_validated_accuracy_of_the_recorded_table(finished):
    study, _, run, client = finished
    table = stored_predictions(Run(client, run.info.run_id), "cv")
    accuracy = (table["y_true"] == table["y_pred"]).mean()
    assert study.best_value == run.data.metrics["cv_accuracy"] == pytest.approx(accuracy)
    assert {"cv_accuracy_std", "cv_loss", "cv_macro_f1"} <= run.data.metrics.keys()
    names = {file.path for file in client.list_artifacts(run.info.run_id, "evaluation")}
    cv = {f"evaluation/{n}" for n in ("confusion_matrix_cv.png", "confusion_matrix_cv.json")}
    assert cv | {"evaluation/predictions_cv.csv"} <= names


def test_the_models_temperature_is_that_of_the_images_held_out(finished):
    _, runner, run, client = finished
    table = stored_predictions(Run(client, run.info.run_id), "cv")
    found = recalibrate(table, runner._bench.classes, 0.95)
    model = client.get_logged_model(model_uri(client, run).removeprefix("models:/"))
    info = get_model_info(model.artifact_location.removeprefix("file://"))
    assert Confidence.of(info.metadata) == found.confidence
    assert run.data.metrics["cv_ece"] == pytest.approx(found.error_before)
    assert run.data.metrics["cv_ece_calibrated"] == pytest.approx(found.error_after)
    assert "valid_ece" not in run.data.metrics
    names = {file.path for file in client.list_artifacts(run.info.run_id, "evaluation")}
    assert "evaluation/calibration_cv.png" in names


def test_fold_scores_are_kept_by_fold(finished):
    _, _, run, client = finished
    history = client.get_metric_history(run.info.run_id, "fold_accuracy")
    assert [row.step for row in history] == [1, 2, 3, 4]


class AfterFold(optuna.pruners.BasePruner):
    """Stops every trial once fold `n` has been reported."""

    def __init__(self, n):
        self.n = n

    def prune(self, study, trial):
        return trial.last_step >= (self.n - 1) * BLOCKS_PER_FOLD


@pytest.mark.parametrize(("fold", "state"), [(2, "PRUNED"), (3, "COMPLETE")])
def test_a_trial_with_most_of_its_work_done_is_finished(
    fold, state, cv_config, bench, data_facts, folds, store, begin
):
    study, plain = begin(store, cv_config)
    study.pruner = AfterFold(fold)
    runner = TrialRunner(cv_config, bench, data_facts, plain._parent, folds)
    assert runner.run(study, study.ask()).state == state


def test_a_clearly_poorer_recipe_stops_after_a_fold(cv_config):
    study = optuna.create_study(direction="maximize", pruner=pruner_for(cv_config))
    good, poor = study.ask(), None
    for block in range(3 * BLOCKS_PER_FOLD):
        good.report(0.8 + 0.01 * (block % 3), block)
    study.tell(good, 0.81)
    poor = study.ask()
    for block in range(BLOCKS_PER_FOLD):
        poor.report(0.6 + 0.01 * (block % 2), block)
    assert poor.should_prune()


def test_an_equally_good_recipe_goes_on(cv_config):
    study = optuna.create_study(direction="maximize", pruner=pruner_for(cv_config))
    first = study.ask()
    for block in range(3 * BLOCKS_PER_FOLD):
        first.report(0.8 + 0.01 * (block % 3), block)
    study.tell(first, 0.81)
    second = study.ask()
    for block in range(BLOCKS_PER_FOLD):
        second.report(0.8 + 0.01 * ((block + 1) % 3), block)
    assert not second.should_prune()


def test_too_few_images_for_the_folds_are_refused_with_the_way_out(cv_config, bench):
    with pytest.raises(UserError, match="OBJECTIVE=valid"):
        make_folds(replace(cv_config, n_folds=9), bench.splits["train"])
