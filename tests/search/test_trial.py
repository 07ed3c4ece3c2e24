"""A trial and its run: what is recorded, and that their ends agree, whatever the end was."""

import csv
import json
from dataclasses import asdict, dataclass, fields

import numpy as np
import optuna
import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from optuna.testing.pruners import DeterministicPruner
from optuna.trial import FrozenTrial, TrialState

from nutclf.config import Recipe
from nutclf.evaluate.calibration import recalibrate
from nutclf.evaluate.temperature import Confidence
from nutclf.search.trial import RUN_ID, Outcome
from nutclf.track.evaluation import stored_predictions
from nutclf.track.models import load_metadata
from nutclf.track.registry import model_uri
from nutclf.track.runs import Run
from nutclf.track.store import Store

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
def swept(tmp_path_factory, migrated, begin, tiny_config, copy_store):
    store = copy_store(migrated, tmp_path_factory.mktemp("swept") / "store")
    study, runner = begin(store, tiny_config)
    outcomes = [runner.run(study, study.ask())]
    study.pruner = DeterministicPruner(True)
    study.enqueue_trial(DRAWN | {"learning_rate": 1e-3})
    outcomes.append(runner.run(study, study.ask()))
    study.pruner = optuna.pruners.NopPruner()
    study.enqueue_trial(DRAWN | {"learning_rate": 1e38})
    outcomes.append(runner.run(study, study.ask()))
    client, trials = store.client(), study.get_trials()
    runs = [client.get_run(trial.user_attrs[RUN_ID]) for trial in trials]
    parent = client.get_run(runs[0].data.tags["mlflow.parentRunId"])
    return Swept(store, client, trials, outcomes, runs, parent)


@pytest.fixture
def complete(swept):
    """The run that came to a result."""
    return swept.runs[0]


def downloaded(swept, run, path):
    return (
        swept.store.folder / "artifacts/nutclf" / run.info.run_id / "artifacts" / path
    ).read_text()


def artifacts(client, run, folder=None):
    found = client.list_artifacts(run.info.run_id, folder)
    files = {file.path for file in found if not file.is_dir}
    return files.union(*(artifacts(client, run, file.path) for file in found if file.is_dir))


def one_trial_run(store):
    """The only trial run of a store."""
    client = store.client()
    found = client.search_runs([store.experiment_id("nutclf")], "tags.kind = 'trial'")
    assert len(found) == 1
    return found[0]


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
    assert "Traceback (most recent call last)" in downloaded(swept, failed, "traceback.txt")
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


def test_params_hold_the_recipe_and_the_whole_study(complete, tiny_config):
    params, recipe = complete.data.params, tiny_config.baseline
    for field in fields(Recipe):
        assert params[field.name] == str(getattr(recipe, field.name))
    assert (params["backbone"], params["seed"]) == ("tiny", "0")
    assert params["study.space.n_unfrozen"] == "(0, 4)"
    assert params["study.objective.metric"] == "best_valid_loss"
    assert params["study.augmentation.rotation"] == "0.1"
    assert leaves(asdict(tiny_config)) == sum(key.startswith("study.") for key in params)


def leaves(value):
    return sum(map(leaves, value.values())) if isinstance(value, dict) else 1


def test_trainable_parameters_are_counted_with_those_that_train(complete):
    """Depth 4 of the tiny network: convolution 3*3*8*8+8, normalisation 8+8, then the head."""
    head = (8 * 256 + 256) + (256 * 3 + 3)
    assert complete.data.params["trainable_parameters"] == str(3 * 3 * 8 * 8 + 8 + 16 + head)
    first, statistics = 3 * 3 * 3 * 8 + 8, 16
    total = first + 3 * 3 * 8 * 8 + 8 + 16 + statistics + head
    assert complete.data.params["total_parameters"] == str(total)


def test_metrics_of_the_valid_split(complete):
    named = {f"valid_macro_{score}" for score in ("f1", "precision", "recall")}
    named |= {
        f"valid_{score}/{name}"
        for score in ("f1", "precision", "recall")
        for name in ("almonds", "pecans", "walnuts")
    }
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
    assert artifacts(swept.client, complete) == files
    assert artifacts(swept.client, swept.runs[1]) == {"config.json"}
    assert artifacts(swept.client, swept.runs[2]) == {"config.json", "traceback.txt"}


def test_the_config_file_holds_recipe_and_study(swept, complete, tiny_config):
    config = json.loads(downloaded(swept, complete, "config.json"))
    assert config["recipe"] == asdict(tiny_config.baseline)
    assert config["study"]["objective.metric"] == "best_valid_loss"


def test_the_confusion_matrix_and_the_predictions_give_the_logged_accuracy(swept, complete):
    record = json.loads(downloaded(swept, complete, "evaluation/confusion_matrix_valid.json"))
    matrix = np.array(record["matrix"])
    assert record["classes"] == ["almonds", "pecans", "walnuts"]
    assert matrix.sum(axis=1).tolist() == [4, 4, 4]
    accuracy = complete.data.metrics["best_valid_accuracy"]
    assert matrix.trace() / matrix.sum() == pytest.approx(accuracy, abs=1e-6)
    rows = list(
        csv.DictReader(downloaded(swept, complete, "evaluation/predictions_valid.csv").splitlines())
    )
    right = sum(row["y_true"] == row["y_pred"] for row in rows)
    assert right == matrix.trace()
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
    assert metadata["classes"] == ["almonds", "pecans", "walnuts"]
    assert metadata["image_size"] == 32


def test_the_models_temperature_is_that_of_its_valid_predictions(swept, complete):
    run = Run(swept.client, complete.info.run_id)
    table, metrics = stored_predictions(run, "valid"), complete.data.metrics
    found = recalibrate(table, ["almonds", "pecans", "walnuts"], 0.95)
    metadata = load_metadata(swept.store, model_uri(swept.client, complete))
    assert Confidence.of(metadata) == found.confidence
    assert metadata["coverage"] == 0.95
    assert metrics["temperature"] == pytest.approx(metadata["temperature"])
    assert metrics["confidence_threshold"] == pytest.approx(metadata["threshold"])
    assert metrics["valid_ece"] == pytest.approx(found.error_before)
    assert metrics["valid_ece_calibrated"] == pytest.approx(found.error_after)


class StoppingPruner(optuna.pruners.BasePruner):
    """Raises in the middle of a trial, as a signal would."""

    def __init__(self, error):
        self.error = error

    def prune(self, study, trial):
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupted_trial_is_closed_and_the_interrupt_goes_on(store, begin, tiny_config, error):
    study, runner = begin(store, tiny_config)
    study.pruner = StoppingPruner(error)
    with pytest.raises(type(error)):
        runner.run(study, study.ask())
    (trial,), run = study.get_trials(), one_trial_run(store)
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["reason"] == "interrupted"
    assert (run.info.status, run.data.tags["reason"]) == ("FAILED", "interrupted")
    assert run.data.tags["trial_state"] == "FAIL"


def test_an_error_of_the_program_fails_the_trial_too(store, begin, tiny_config):
    study, runner = begin(store, tiny_config)
    study.pruner = StoppingPruner(ZeroDivisionError("by chance\nsecond line"))
    outcome = runner.run(study, study.ask())
    run = one_trial_run(store)
    assert (outcome.state, outcome.value) == ("FAIL", None)
    assert outcome.summary == "ZeroDivisionError: by chance", "one line of progress"
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == "ZeroDivisionError: by chance\nsecond line"


def test_a_run_that_cannot_be_written_is_closed_too(store, begin, tiny_config):
    """No artifact can be made where a file lies: as on a full disk, also not the traceback."""
    study, runner = begin(store, tiny_config)
    (store.folder / "artifacts").write_text("in the way")
    outcome = runner.run(study, study.ask())
    assert outcome.state == study.get_trials()[0].state.name == "FAIL"
    assert one_trial_run(store).info.status == "FAILED"
