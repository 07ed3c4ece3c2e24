"""A trial and its run: what is recorded, and that their ends agree, whatever the end was."""

import csv
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from optuna.testing.pruners import DeterministicPruner
from optuna.trial import FrozenTrial

from nutclf.config import OBJECTIVES, Ensemble, Recipe
from nutclf.evaluate.calibration import recalibrate
from nutclf.evaluate.temperature import Confidence
from nutclf.search.race import Leader
from nutclf.search.trial import RUN_ID, OpenStudy, Outcome
from nutclf.track.evaluation import stored_predictions
from nutclf.track.models import load_metadata
from nutclf.track.registry import model_uri
from nutclf.track.runs import Run
from nutclf.track.store import Store
from nutclf.train.workbench import Workbench

CLASSES = ["almonds", "pecans", "walnuts"]
EPOCH_METRICS = {"train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "learning_rate"}
DRAWN = {"n_unfrozen": 4, "dropout_rate": 0.5, "epochs": 3, "lr_schedule": "constant"}
"""Parameters of a trial that is enqueued; what it leaves open is drawn."""


@dataclass
class Swept:
    """A study of three trials: COMPLETE, PRUNED, FAIL; only to be read."""

    store: Store
    client: MlflowClient
    trials: list[FrozenTrial]
    outcomes: list[Outcome]
    runs: list[MlflowRun]
    parent: MlflowRun


@pytest.fixture(scope="module")
def swept(tmp_path_factory, migrated, begin, run_trial, tiny_config, copy_store):
    store = copy_store(migrated, tmp_path_factory.mktemp("swept") / "store")
    open_study = begin(store, tiny_config)
    study, outcomes = open_study.optuna, [run_trial(open_study)]
    study.pruner = DeterministicPruner(True)
    study.enqueue_trial(DRAWN | {"learning_rate": 1e-3})
    outcomes.append(run_trial(open_study))
    study.pruner = optuna.pruners.NopPruner()
    study.enqueue_trial(DRAWN | {"learning_rate": 1e38})
    outcomes.append(run_trial(open_study))
    client, trials = store.client(), study.get_trials()
    runs = [client.get_run(trial.user_attrs[RUN_ID]) for trial in trials]
    parent = client.get_run(runs[0].data.tags["mlflow.parentRunId"])
    return Swept(store, client, trials, outcomes, runs, parent)


@pytest.fixture
def complete(swept):
    """The run that came to a result."""
    return swept.runs[0]


def downloaded(swept, run, path):
    folder = swept.store.folder / "artifacts/nutclf" / run.info.run_id / "artifacts"
    return (folder / path).read_text()


def artifacts(client, run, folder=None):
    found = client.list_artifacts(run.info.run_id, folder)
    files = {file.path for file in found if not file.is_dir}
    return files.union(*(artifacts(client, run, file.path) for file in found if file.is_dir))


@pytest.mark.parametrize(
    ("number", "state", "status", "reason"),
    [
        (0, "COMPLETE", "FINISHED", None),
        (1, "PRUNED", "KILLED", "poorer than others after epoch 1"),
        (2, "FAIL", "FAILED", "NonFiniteLoss: in epoch"),
    ],
)
def test_state_and_status_agree(swept, number, state, status, reason):
    trial, run = swept.trials[number], swept.runs[number]
    assert (trial.state.name, run.info.status) == (state, status)
    assert swept.outcomes[number].state == run.data.tags["trial_state"] == state
    assert run.info.end_time
    for text in (run.data.tags.get("reason"), trial.user_attrs.get("reason")):
        assert text == reason if reason is None else text.startswith(reason)


def test_the_value_is_the_objective_in_both_records(swept, complete):
    value = complete.data.metrics["best_valid_loss"]
    assert swept.trials[0].value == swept.outcomes[0].value == value
    assert [outcome.value for outcome in swept.outcomes[1:]] == [None, None]


def test_a_failed_run_keeps_its_traceback_and_no_infinite_number(swept):
    failed = swept.runs[2]
    assert "NonFiniteLoss" in downloaded(swept, failed, "traceback.txt")
    assert all(np.isfinite(value) and value < 1e300 for value in failed.data.metrics.values())


@pytest.mark.parametrize(("number", "epochs"), [(0, 3), (1, 1)])
def test_one_row_a_metric_an_epoch(swept, number, epochs):
    run_id = swept.runs[number].info.run_id
    for key in EPOCH_METRICS:
        steps = [row.step for row in swept.client.get_metric_history(run_id, key)]
        assert steps == list(range(1, epochs + 1)), key


def test_a_metric_of_the_whole_trial_has_one_row(swept, complete):
    for key in complete.data.metrics.keys() - EPOCH_METRICS:
        rows = swept.client.get_metric_history(complete.info.run_id, key)
        assert [row.step for row in rows] == [0], key


def test_the_best_figures_are_those_of_the_best_epoch(swept, complete):
    metrics, run_id = complete.data.metrics, complete.info.run_id
    losses = [row.value for row in swept.client.get_metric_history(run_id, "valid_loss")]
    accuracies = [row.value for row in swept.client.get_metric_history(run_id, "valid_accuracy")]
    best = int(metrics["best_epoch"]) - 1
    assert best == np.argmin(losses)
    assert metrics["best_valid_loss"] == losses[best]
    assert metrics["best_valid_accuracy"] == accuracies[best]


def test_params_hold_the_recipe(complete, tiny_config):
    params, recipe = complete.data.params, tiny_config.baseline
    for field in fields(Recipe):
        assert params[field.name] == str(getattr(recipe, field.name))
    assert (params["backbone"], params["seed"]) == ("tiny", "0")
    assert not [key for key in params if key.startswith("study.")], "the study's run has those"


def test_trainable_parameters_are_counted_with_those_that_train(complete):
    """Depth 4 of the tiny network: convolution 3*3*8*8+8, normalisation 8+8, then the head."""
    head = (8 * 256 + 256) + (256 * 3 + 3)
    assert complete.data.params["trainable_parameters"] == str(3 * 3 * 8 * 8 + 8 + 16 + head)
    first, statistics = 3 * 3 * 3 * 8 + 8, 16
    total = first + 3 * 3 * 8 * 8 + 8 + 16 + statistics + head
    assert complete.data.params["total_parameters"] == str(total)


def test_metrics_of_the_valid_split(complete):
    named = {f"valid_macro_{score}" for score in ("f1", "precision", "recall")}
    named |= {f"valid_{s}/{name}" for s in ("f1", "precision", "recall") for name in CLASSES}
    assert named <= complete.data.metrics.keys()
    assert not [key for key in complete.data.metrics if key.startswith("test_")]


def test_a_finished_run_has_these_artifacts_and_no_others(swept, complete):
    files = {
        "config.json",
        "evaluation/calibration_valid.png",
        "evaluation/confusion_matrix_valid.json",
        "evaluation/confusion_matrix_valid.png",
        "evaluation/learning_curves.png",
        "evaluation/predictions_valid.csv",
    }
    found = artifacts(swept.client, complete)
    images = {path for path in found if path.startswith("images/")}
    assert found - images == files
    # For MLflow's image grid: each picture whole, and small.
    pictures = {path for path in files if path.endswith(".png")}
    assert {f"evaluation/{Path(path).name.split('+')[0]}.png" for path in images} == pictures
    assert len(images) == 2 * len(pictures)
    assert artifacts(swept.client, swept.runs[1]) == {"config.json"}
    assert artifacts(swept.client, swept.runs[2]) == {"config.json", "traceback.txt"}
    config = json.loads(downloaded(swept, complete, "config.json"))
    assert config["recipe"]["epochs"] == 3
    assert config["study"]["objective.metric"] == "best_valid_loss"


def test_the_confusion_matrix_and_the_predictions_give_the_logged_accuracy(swept, complete):
    record = json.loads(downloaded(swept, complete, "evaluation/confusion_matrix_valid.json"))
    matrix = np.array(record["matrix"])
    assert record["classes"] == CLASSES
    assert matrix.sum(axis=1).tolist() == [4, 4, 4]
    accuracy = complete.data.metrics["best_valid_accuracy"]
    assert matrix.trace() / matrix.sum() == accuracy, "not a mean in float32"
    lines = downloaded(swept, complete, "evaluation/predictions_valid.csv").splitlines()
    rows = list(csv.DictReader(lines))
    assert sum(row["y_true"] == row["y_pred"] for row in rows) == matrix.trace()
    assert all(row["path"].split("/")[1] == row["y_true"] for row in rows)
    assert accuracy > 1 / 3, "three colours are not hard: otherwise this says nothing"


def test_the_data_set_is_logged_with_its_digest(swept, source):
    for run in swept.runs:
        (logged,) = run.inputs.dataset_inputs
        assert logged.dataset.name == "nuts"
        assert source.data.fingerprint.startswith(logged.dataset.digest)
        assert len(logged.dataset.digest) >= 12
        assert json.loads(logged.dataset.profile)["num_rows"] == 3 * (8 + 4 + 4)


def test_tags_lead_to_code_data_study_and_parent(swept, source):
    for number, run in enumerate(swept.runs):
        tags = run.data.tags
        assert len(tags["mlflow.source.git.commit"]) == 40
        assert tags["git_dirty"] in ("true", "false")
        assert tags["data_fingerprint"] == source.data.fingerprint
        assert tags["data_source"] == "photographs"
        assert (tags["study_name"], tags["trial_number"]) == ("tiny", str(number))
        assert tags["mlflow.parentRunId"] == swept.parent.info.run_id
    assert swept.parent.data.tags["kind"] == "study"


def test_only_a_finished_run_has_a_model(swept, complete):
    assert [len(run.outputs.model_outputs) for run in swept.runs] == [1, 0, 0]
    metadata = load_metadata(swept.store, model_uri(swept.client, complete))
    assert (metadata["classes"], metadata["image_size"]) == (CLASSES, 32)


def test_the_models_temperature_is_that_of_its_valid_predictions(swept, complete):
    run = Run(swept.client, complete.info.run_id)
    found = recalibrate(stored_predictions(run, "valid"), CLASSES, 0.95)
    metadata = load_metadata(swept.store, model_uri(swept.client, complete))
    metrics = complete.data.metrics
    assert Confidence.of(metadata) == found.confidence
    assert metrics["temperature"] == pytest.approx(metadata["temperature"])
    assert metrics["confidence_threshold"] == pytest.approx(metadata["threshold"])
    assert metrics["valid_ece"] == pytest.approx(found.error_before)
    assert metrics["valid_ece_calibrated"] == pytest.approx(found.error_after)


def test_a_run_that_cannot_be_written_is_closed_too(store, begin, run_trial, tiny_config):
    """No artifact can be made where a file lies: as on a full disk, also not the traceback."""
    study = begin(store, tiny_config)
    (store.folder / "artifacts").write_text("in the way")
    outcome = run_trial(study)
    assert outcome.state == study.optuna.get_trials()[0].state.name == "FAIL"
    runs = store.client().search_runs([study.run.study[0]], "tags.kind = 'trial'")
    assert [run.info.status for run in runs] == ["FAILED"]


@dataclass
class CrossValidated:
    """A cross-validated trial, COMPLETE; only to be read."""

    study: OpenStudy
    run: MlflowRun
    client: MlflowClient
    table: object


@pytest.fixture(scope="module")
def cv_config(tiny_config):
    return replace(tiny_config, objective=OBJECTIVES["cv"], n_folds=4)


@pytest.fixture(scope="module")
def cross_validated(tmp_path_factory, migrated, copy_store, begin, run_trial, cv_config):
    store = copy_store(migrated, tmp_path_factory.mktemp("cv") / "store")
    study = begin(store, cv_config)
    outcome = run_trial(study)
    assert outcome.state == "COMPLETE", outcome.summary
    client = store.client()
    run = client.get_run(study.optuna.get_trials()[0].user_attrs[RUN_ID])
    return CrossValidated(
        study, run, client, stored_predictions(Run(client, run.info.run_id), "cv")
    )


def test_each_training_image_is_judged_once_by_the_fold_that_holds_it_out(cross_validated):
    table, rows = cross_validated.table, cross_validated.study.rows("train")
    assert table["path"].tolist() == rows["path"].tolist()
    assert table["fold"].tolist() == rows["fold"].tolist()
    assert sorted(set(rows["fold"])) == [0, 1, 2, 3]


def test_a_fold_is_predicted_by_a_fit_that_never_saw_it(cross_validated, bench, cv_config):
    """The same fit by hand, answered as the other folds would have it."""
    folds = cross_validated.study.rows("train")["fold"].to_numpy()
    by_hand = Workbench(cv_config, bench.backbone, bench.classes, bench.splits, None)
    said = by_hand.fit(cv_config.baseline, rows=np.flatnonzero(folds != 2)).held_out
    table, views = cross_validated.table, cv_config.test_views
    ways = [said[[views.index(view) for view in tta]].mean(axis=0) for tta in cv_config.tta]
    recorded = table[table["fold"] == 2][CLASSES].to_numpy()
    gaps = [np.abs(recorded - way).max() for way in ways]
    assert min(gaps) < 1e-4
    assert max(gaps) > 1e-3, "views differ: otherwise this says little"


def test_the_objective_is_the_cross_validated_accuracy_of_the_recorded_table(cross_validated):
    table, metrics = cross_validated.table, cross_validated.run.data.metrics
    accuracy = (table["y_true"] == table["y_pred"]).mean()
    value = cross_validated.study.optuna.best_value
    assert value == metrics["cv_accuracy"] == pytest.approx(accuracy)
    assert {"cv_accuracy_std", "cv_loss", "cv_macro_f1"} <= metrics.keys()
    assert "valid_ece" not in metrics, "calibrated on the images held out"


def test_epochs_of_folds_have_names_of_their_own(cross_validated):
    run_id, client = cross_validated.run.info.run_id, cross_validated.client
    for key in ("fold_1/valid_loss", "fold_4/valid_loss", "valid_loss"):
        assert [row.step for row in client.get_metric_history(run_id, key)] == [1, 2, 3], key
    fold_accuracies = client.get_metric_history(run_id, "fold_accuracy")
    assert [row.step for row in fold_accuracies] == [1, 2, 3, 4]


def race(study, accuracy):
    """A leader that is right on the first share of each fold's images."""
    rows = study.rows("train")
    place = rows.groupby("fold").cumcount() / rows.groupby("fold")["fold"].transform("size")
    study.leader = Leader(accuracy, (place < accuracy).to_numpy(), Ensemble())


def test_a_trial_that_cannot_win_is_stopped_and_its_value_is_what_its_folds_promise(
    cv_config, store, begin, run_trial
):
    study = begin(store, cv_config)
    poor = dict(zip(DRAWN, (0, 0.5, 1, "constant"), strict=True)) | {"learning_rate": 1e-6}
    race(study, 1.0)
    assert run_trial(study).state == "COMPLETE", "trial 0 is what all is compared with"
    race(study, 1.0)
    study.optuna.enqueue_trial(poor)
    trials = len(study.optuna.get_trials())
    while run_trial(study).number < trials - 1:
        pass
    trial = study.optuna.get_trials()[-1]
    assert (trial.state.name, trial.user_attrs["reason"]) == (
        "PRUNED",
        "poorer than the best after fold 2",
    )
    run = store.client().get_run(trial.user_attrs[RUN_ID])
    so_far = run.data.metrics["cv_accuracy_so_far"]
    assert "cv_accuracy" not in run.data.metrics
    assert so_far < 0.7
    # The leader has all right, so the difference on the shared images is what is missing.
    assert trial.value == pytest.approx(1.0 + so_far - 1.0)
    folds = [run.data.metrics[f"fold_{fold}/valid_loss"] for fold in (1, 2)]
    assert run.data.metrics["valid_loss"] == pytest.approx(np.mean(folds))


def test_a_trial_that_leads_is_taken_note_of(cross_validated):
    leader, table = cross_validated.study.leader, cross_validated.table
    assert leader.value == cross_validated.study.optuna.best_value
    assert leader.right.tolist() == (table["y_true"] == table["y_pred"]).tolist()
    assert str(leader.ensemble) == cross_validated.run.data.params["ensemble"]


def test_the_shallowest_depths_come_first(cv_config, store, begin):
    waiting = begin(store, cv_config).optuna.get_trials()
    fixed = [trial.system_attrs["fixed_params"] for trial in waiting]
    assert [each["n_unfrozen"] for each in fixed] == [cv_config.baseline.n_unfrozen, 0, 4]
    assert [len(each) for each in fixed[1:]] == [1, 1]
