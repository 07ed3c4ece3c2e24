"""The way to the champion: compared, explained, proved, and the test split opened once."""

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from nutclf.config import OBJECTIVES, Recipe
from nutclf.data.source import resolve
from nutclf.errors import UserError
from nutclf.search.session import data_record, labelled
from nutclf.search.study import open_study
from nutclf.search.trial import TrialRunner
from nutclf.track import models as reload
from nutclf.track.evaluation import stored_predictions
from nutclf.track.promotion import promote
from nutclf.track.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, best_run, model_uri
from nutclf.track.runs import Run, study_run
from nutclf.track.store import Store
from nutclf.train.workbench import Workbench

POOR = Recipe(epochs=1, lr_schedule="constant", learning_rate=1e-6)

RELOAD = """
import importlib.util, sys
import mlflow.keras
import numpy as np
assert importlib.util.find_spec("nutclf") is None
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.keras.load_model("models:/nutclf@champion")
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, migrated, begin, tiny_config, copy_store):
    """A store with one trial each of a study that learns and one that does not."""
    store = copy_store(migrated, tmp_path_factory.mktemp("trained") / "store")
    for config in (
        replace(tiny_config, name="good"),
        replace(tiny_config, name="poor", baseline=POOR),
    ):
        study, runner = begin(store, config)
        assert runner.run(study, study.ask()).state == "COMPLETE"
    return store


@pytest.fixture
def filled(trained, copy_store, tmp_path):
    """A store of the test's own with both studies."""
    return copy_store(trained.folder, tmp_path / "store")


@pytest.fixture
def promoted(filled, tiny_config, load_split, source):
    """Promotes a study of the store."""

    def promoted(name, load=load_split, fingerprint=source.data.fingerprint, leaks=dict):
        return promote(filled, "nutclf", name, tiny_config.objective, load, fingerprint, leaks)

    load_split.asked.clear()
    return promoted


@pytest.fixture
def registry(filled):
    return Registry(filled.client(), "nutclf")


@pytest.fixture
def best(filled, tiny_config):
    """The run that a study would promote."""

    def best(name):
        client = filled.client()
        experiment = filled.experiment_id("nutclf")
        return Run(client, best_run(client, experiment, name, tiny_config.objective).info.run_id)

    return best


def data_of(run):
    return run.client.get_run(run.run_id).data


def saved_network(store: Store, run: Run):
    """The file of a run's model."""
    model_id = model_uri(run.client, run.client.get_run(run.run_id)).removeprefix("models:/")
    return store.folder / "artifacts/nutclf/models" / model_id / "artifacts/data/model.keras"


def test_the_two_studies_differ(best):
    """Otherwise the tests below say nothing."""
    good, poor = (data_of(best(name)).metrics["best_valid_loss"] for name in ("good", "poor"))
    assert good < poor - 0.05


def test_the_first_model_is_champion(promoted, registry, best):
    promotion = promoted("poor")
    champion = registry.at(CHAMPION)
    assert promotion.is_champion
    assert champion.version == promotion.version
    assert champion.run_id == best("poor").run_id
    assert champion.description == promotion.reason
    assert "is champion: there was none before" in promotion.reason
    assert "study poor, best_valid_loss" in promotion.reason
    assert f"({promotion.test.successes}/12" in promotion.reason
    assert champion.tags["promotion"] == "champion"
    assert champion.tags["study_name"] == "poor"
    assert promotion.uri == "models:/nutclf@champion"


def test_a_better_model_replaces_the_champion(promoted, registry):
    before = promoted("poor")
    assert registry.at(PREVIOUS) is None
    after = promoted("good")
    assert after.is_champion
    assert registry.at(CHAMPION).version == after.version != before.version
    assert registry.at(PREVIOUS).version == before.version
    assert f"replaces champion version {before.version}" in after.reason
    assert registry.at(CHAMPION).description == after.reason
    assert registry.at(CHALLENGER) is None
    again = promoted("good")
    assert "is champion already" in again.reason
    assert registry.at(PREVIOUS).version == before.version, "the way back stays open"
    assert registry.at(CHAMPION).description == after.reason, "why it became champion stays"


def test_a_worse_model_becomes_challenger_and_the_champion_stays(promoted, registry):
    first, second = promoted("good"), promoted("poor")
    assert not second.is_champion
    assert registry.at(CHAMPION).version == first.version
    assert registry.at(CHAMPION).description == first.reason
    assert registry.at(CHALLENGER).version == second.version
    assert registry.at(CHALLENGER).description == second.reason
    assert f"does not replace champion version {first.version}" in second.reason
    assert registry.at(CHALLENGER).tags["promotion"] == "challenger"


def test_the_reason_gives_both_values_on_the_same_images(promoted, best):
    good, poor = (data_of(best(name)).metrics["best_valid_loss"] for name in ("good", "poor"))
    promoted("poor")
    reason = promoted("good").reason
    assert f"valid loss {good:.4f} against {poor:.4f} on the same images" in reason


def test_promoting_twice_opens_the_test_split_once(promoted, registry, best, load_split):
    first = promoted("good")
    assert load_split.asked.count("test") == 1
    load_split.asked.clear()
    again = promoted("good")
    assert "test" not in load_split.asked
    assert data_of(best("good")).tags["test_openings"] == "1"
    assert again.version == first.version
    assert again.is_champion
    assert again.test == first.test
    assert len(registry.client.search_model_versions("name = 'nutclf'")) == 1


def test_the_test_split_is_recorded_like_the_valid_split(promoted, best):
    promotion, run = promoted("good"), best("good")
    table = stored_predictions(run, "test")
    assert len(table) == 12
    assert all(path.startswith("test/") for path in table["path"])
    right = int((table["y_true"] == table["y_pred"]).sum())
    assert promotion.test.successes == right
    assert data_of(run).metrics["test_accuracy"] == right / 12
    files = {file.path for file in run.client.list_artifacts(run.run_id, "evaluation")}
    assert {f"evaluation/confusion_matrix_test.{kind}" for kind in ("png", "json")} <= files


def test_a_winner_is_loaded_once_before_and_once_through_its_alias(promoted, monkeypatch, best):
    loaded, load_model = [], reload.load_model

    def counted(store, uri):
        loaded.append(uri)
        return load_model(store, uri)

    monkeypatch.setattr(reload, "load_model", counted)
    promoted("poor")
    run = best("poor")
    own = model_uri(run.client, run.client.get_run(run.run_id))
    assert loaded == [own, "models:/nutclf@champion"]
    loaded.clear()
    promoted("good")
    assert len(loaded) == 3, "the rival, the champion that it is compared with, and the alias"


def test_leaked_test_images_are_left_out_of_the_headline(promoted, registry, best):
    leaks = {"test/pecans/0.png": "train/pecans/3.png", "test/pecans/1.png": "valid/pecans/2.png"}
    promotion, run = promoted("good", leaks=lambda: leaks), best("good")
    data, table = data_of(run), stored_predictions(run, "test")
    whole = stored_predictions(run, "test_with_leaks")
    assert (len(whole), len(table)) == (12, 10)
    assert set(whole["path"]) - set(table["path"]) == set(leaks)
    right, all_right = (int((t["y_true"] == t["y_pred"]).sum()) for t in (table, whole))
    assert (promotion.test.successes, promotion.test.n) == (right, 10)
    assert data.metrics["test_accuracy"] == right / 10
    assert data.metrics["test_accuracy_with_leaks"] == all_right / 12
    assert data.metrics["test_leaks"] == 2
    for tags in (data.tags, registry.at(CHAMPION).tags):
        assert tags["test_leaks"] == (
            "test/pecans/0.png is train/pecans/3.png; test/pecans/1.png is valid/pecans/2.png"
        )
    reason = registry.at(CHAMPION).description
    assert f"({right}/10" in reason
    assert "without 2 of 12 test images that train or valid have too" in reason
    assert f"with them {all_right / 12:.3f} ({all_right}/12" in reason


def test_without_leaks_both_figures_are_one(promoted, best):
    reason = promoted("good").reason
    data = data_of(best("good"))
    assert data.metrics["test_accuracy_with_leaks"] == data.metrics["test_accuracy"]
    assert data.metrics["test_leaks"] == 0
    assert "test_leaks" not in data.tags
    assert "with them" not in reason


def test_a_study_that_was_not_promoted_never_opened_the_test_split(promoted, best):
    promoted("good")
    assert "test_openings" not in data_of(best("poor")).tags
    assert stored_predictions(best("poor"), "test") is None


def test_the_champion_opens_in_a_process_without_this_package(
    promoted, filled, best, load_split, tmp_path
):
    promoted("good")
    recorded = stored_predictions(best("good"), "valid").set_index("path")
    images = load_split("valid", 32)
    np.save(tmp_path / "pixels.npy", images.pixels)
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, filled.tracking_uri, "pixels.npy", "probabilities.npy"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = recorded.loc[images.paths, ["almonds", "pecans", "walnuts"]].to_numpy()
    assert np.ptp(expected, axis=0).max() > 0.01, "the images differ for the network"
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected, atol=1e-6)


def test_a_study_without_results_is_refused(promoted, registry):
    with pytest.raises(UserError, match=r"'nobody' has no finished run.*make sweep"):
        promoted("nobody")
    assert registry.at(CHAMPION) is None


def test_a_study_that_was_judged_otherwise_is_refused(filled, load_split, source, registry):
    facts = load_split, source.data.fingerprint, pytest.fail
    with pytest.raises(UserError, match=r"No run of study 'good' has cv_accuracy.*OBJECTIVE="):
        promote(filled, "nutclf", "good", OBJECTIVES["cv"], *facts)
    assert registry.at(CHAMPION) is None


def test_other_data_are_refused_before_the_test_split_is_opened(promoted, registry, load_split):
    with pytest.raises(UserError, match=r"fingerprint .* and these have ffff.*DATA="):
        promoted("good", fingerprint="f" * 64)
    assert load_split.asked == []
    assert registry.at(CHAMPION) is None


def test_a_network_that_was_exchanged_is_not_promoted(promoted, registry, filled, best, load_split):
    """It is found out before anything is decided on it, and before it sees the test split."""
    champion = promoted("poor")
    shutil.copy(saved_network(filled, best("poor")), saved_network(filled, best("good")))
    load_split.asked.clear()
    with pytest.raises(RuntimeError, match="differs"):
        promoted("good")
    assert registry.at(CHAMPION).version == champion.version
    assert "test" not in load_split.asked
    assert stored_predictions(best("good"), "test") is None


def test_a_champion_of_other_classes_is_not_compared(
    promoted, registry, filled, nuts, tiny_config, tiny_backbone, tmp_path
):
    """As many classes, but not the same: position 1 is another nut in each network."""
    champion = promoted("good")
    shutil.copytree(nuts, tmp_path / "other")
    for split in ("train", "valid", "test"):
        (tmp_path / "other" / split / "almonds").rename(tmp_path / "other" / split / "pistachios")
    other = resolve(str(tmp_path / "other"), environ={}, workdir=tmp_path)
    config, record = replace(tiny_config, name="other"), data_record(other)
    splits = {split: labelled(other.data, split, 32, print) for split in ("train", "valid")}
    bench = Workbench(config, tiny_backbone, other.data.classes, splits, None)
    study = open_study(filled, config, {})
    parent = study_run(filled, filled.experiment_id("nutclf"), "other", record.tags)
    assert TrialRunner(config, bench, record, parent).run(study, study.ask()).state == "COMPLETE"

    def load(split, size):
        return labelled(other.data, split, size, print)

    promotion = promoted("other", load, record.fingerprint)
    assert not promotion.is_champion
    assert "other classes" in promotion.reason
    assert "almonds, pecans, walnuts" in promotion.reason
    assert registry.at(CHAMPION).version == champion.version
    assert registry.at(CHALLENGER).version == promotion.version
