"""The way to the champion: compared, explained, proved, and the test split opened once."""

import contextlib
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from nutclf.config import OBJECTIVES
from nutclf.errors import UserError
from nutclf.evaluate.metrics import classification_metrics
from nutclf.evaluate.predictions import prediction_table
from nutclf.model.network import predict
from nutclf.track import models
from nutclf.track.evaluation import stored_predictions, write_evaluation
from nutclf.track.models import log_model
from nutclf.track.promotion import promote
from nutclf.track.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, best_run, model_uri
from nutclf.track.runs import Run, study_run, trial_run

CLASSES = ["almonds", "pecans", "walnuts"]
OTHER_CLASSES = ["almonds", "pistachios", "walnuts"]
SIDE = 32
FINGERPRINT = "aa" * 32
TAGS = {"data_fingerprint": FINGERPRINT, "data_source": "photographs"}
VALID = OBJECTIVES["valid"]

RELOAD = """
import importlib.util, sys
import mlflow.keras
import numpy as np
assert importlib.util.find_spec("nutclf") is None
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.keras.load_model("models:/nutclf@champion")
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""


def network(sharpness):
    """Takes the strongest colour for the class, which is right for the tiny images."""
    pixels = keras.Input((SIDE, SIDE, 3))
    colours = keras.layers.GlobalAveragePooling2D()(pixels)
    model = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(colours))
    model.set_weights([np.eye(3) * sharpness, np.zeros(3)])
    return model


def record(store, study, model, load_split, classes=CLASSES):
    """A study of one finished trial, as a sweep leaves it."""
    parent = study_run(store, store.experiment_id("nutclf"), study, TAGS)
    run, valid = trial_run(parent, "t000", 0, TAGS), load_split("valid", SIDE)
    y_prob = predict(model, valid.pixels)
    table = prediction_table(valid.paths, valid.labels, y_prob, classes)
    found = classification_metrics(table, classes)
    write_evaluation(run, "valid", table, classes, found["accuracy"])
    run.metrics({"best_valid_loss": found["loss"]})
    run.params({"backbone": "tiny", "n_unfrozen": 4, "seed": 0})
    log_model(run, model, {"classes": classes, "image_size": SIDE})
    run.end("COMPLETE")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, migrated, copy_store, load_split):
    """A store with a study whose model is sure of its answers, and one whose model hardly is."""
    store = copy_store(migrated, tmp_path_factory.mktemp("trained") / "store")
    record(store, "good", network(0.05), load_split)
    record(store, "poor", network(0.005), load_split)
    return store


@pytest.fixture
def filled(trained, copy_store, tmp_path):
    """A store of the test's own with both studies."""
    return copy_store(trained.folder, tmp_path / "store")


@pytest.fixture
def promoted(filled, load_split):
    """Promotes a study of the store."""

    def promoted(name, load=load_split, fingerprint=FINGERPRINT, leaks=dict, **more):
        objective = more.pop("objective", VALID)
        return promote(filled, "nutclf", name, objective, load, fingerprint, leaks, **more)

    load_split.asked.clear()
    return promoted


@pytest.fixture
def registry(filled):
    return Registry(filled.client(), "nutclf")


@pytest.fixture
def best(filled):
    """The run that a study would promote."""

    def best(name):
        client, experiment = filled.client(), filled.experiment_id("nutclf")
        return Run(client, best_run(client, experiment, name, VALID).info.run_id)

    return best


def data_of(run):
    return run.client.get_run(run.run_id).data


def saved_network(store, run):
    model_id = model_uri(run.client, run.client.get_run(run.run_id)).removeprefix("models:/")
    return store.folder / "artifacts/nutclf/models" / model_id / "artifacts/data/model.keras"


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
    loss = data_of(best("poor")).metrics["best_valid_loss"]
    assert champion.tags["best_valid_loss"] == f"{loss:.4f}"
    assert champion.tags["test_accuracy"] == str(promotion.test)
    assert champion.tags["recipe"] == "backbone tiny, n_unfrozen 4"
    assert champion.tags["load"] == 'mlflow.keras.load_model("models:/nutclf/1")'
    assert promotion.uri == "models:/nutclf@champion"


def test_a_better_model_replaces_the_champion(promoted, registry, best):
    before = promoted("poor")
    assert registry.at(PREVIOUS) is None
    after = promoted("good")
    assert after.is_champion
    assert registry.at(CHAMPION).version == after.version != before.version
    assert registry.at(PREVIOUS).version == before.version
    assert registry.at(CHALLENGER) is None
    assert f"replaces champion version {before.version}" in after.reason
    good, poor = (data_of(best(name)).metrics["best_valid_loss"] for name in ("good", "poor"))
    assert f"valid loss {good:.4f} against {poor:.4f} on the same images" in after.reason
    again = promoted("good")
    assert "is champion already" in again.reason
    assert registry.at(PREVIOUS).version == before.version, "the way back stays open"
    assert registry.at(CHAMPION).description == after.reason, "why it became champion stays"


def test_a_worse_model_becomes_challenger_until_it_is_forced(promoted, registry):
    first, second = promoted("good"), promoted("poor")
    assert not second.is_champion
    assert registry.at(CHAMPION).version == first.version
    assert registry.at(CHAMPION).description == first.reason
    assert registry.at(CHALLENGER).version == second.version
    assert registry.at(CHALLENGER).description == second.reason
    assert f"does not replace champion version {first.version}" in second.reason
    assert registry.at(CHALLENGER).tags["promotion"] == "challenger"
    forced = promoted("poor", force="A customer asks for it.")
    assert forced.is_champion
    assert "By force: A customer asks for it. Its valid loss" in registry.at(CHAMPION).description
    assert registry.at(CHAMPION).version == second.version
    assert registry.at(PREVIOUS).version == first.version
    assert registry.at(CHALLENGER) is None


def test_two_promotions_at_once_decide_one_after_the_other(promoted, registry, load_split):
    """Both are about to judge on test when the first goes on; unlocked, both find no champion."""
    both = threading.Barrier(2)

    def load(split, size):
        if split == "test":
            with contextlib.suppress(threading.BrokenBarrierError):  # the other waits for the lock
                both.wait(timeout=2)
        return load_split(split, size)

    with ThreadPoolExecutor(2) as pool:
        good, poor = pool.map(lambda name: promoted(name, load), ("good", "poor"))
    assert registry.at(CHAMPION).version == good.version
    assert ["there was none before" in found.reason for found in (good, poor)].count(True) == 1
    other = PREVIOUS if poor.is_champion else CHALLENGER
    assert registry.at(other).version == poor.version


def test_the_test_split_is_opened_once_and_recorded_like_the_valid_split(
    promoted, registry, best, load_split
):
    first, run = promoted("good"), best("good")
    assert load_split.asked.count("test") == 1
    table = stored_predictions(run, "test")
    assert [path.split("/")[0] for path in table["path"]] == ["test"] * 12
    right = int((table["y_true"] == table["y_pred"]).sum())
    assert first.test.successes == right
    assert data_of(run).metrics["test_accuracy"] == right / 12
    files = {file.path for file in run.client.list_artifacts(run.run_id, "evaluation")}
    assert {f"evaluation/confusion_matrix_test.{kind}" for kind in ("png", "json")} <= files
    load_split.asked.clear()
    again = promoted("good")
    assert "test" not in load_split.asked
    assert data_of(run).tags["test_openings"] == "1"
    assert (again.version, again.is_champion, again.test) == (first.version, True, first.test)
    assert len(registry.client.search_model_versions("name = 'nutclf'")) == 1
    assert "test_openings" not in data_of(best("poor")).tags, "never promoted, never opened"


def test_a_winner_is_loaded_once_before_and_once_through_its_alias(promoted, monkeypatch, best):
    loaded, load_model = [], models.load_model

    def counted(store, uri):
        loaded.append(uri)
        return load_model(store, uri)

    monkeypatch.setattr(models, "load_model", counted)
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
    table, whole = (stored_predictions(run, name) for name in ("test", "test_with_leaks"))
    assert (len(whole), len(table)) == (12, 10)
    assert set(whole["path"]) - set(table["path"]) == set(leaks)
    assert (promotion.test.n, data_of(run).metrics["test_leaks"]) == (10, 2)
    named = "test/pecans/0.png is train/pecans/3.png; test/pecans/1.png is valid/pecans/2.png"
    assert data_of(run).tags["test_leaks"] == registry.at(CHAMPION).tags["test_leaks"] == named
    assert "without 2 of 12 test images" in registry.at(CHAMPION).description


def test_the_champion_opens_in_a_process_without_this_package(
    promoted, filled, best, load_split, tmp_path
):
    promoted("good")
    recorded = stored_predictions(best("good"), "valid").set_index("path")
    images = load_split("valid", SIDE)
    np.save(tmp_path / "pixels.npy", images.pixels)
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, filled.tracking_uri, "pixels.npy", "probabilities.npy"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = recorded.loc[images.paths, CLASSES].to_numpy()
    assert np.ptp(expected, axis=0).max() > 0.01, "the images differ for the network"
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("nobody", {}, r"'nobody' has no finished run.*make sweep"),
        ("good", {"objective": OBJECTIVES["cv"]}, r"'good' has cv_accuracy.*OBJECTIVE="),
        ("good", {"fingerprint": "f" * 64}, r"fingerprint .* and these have ffff.*DATA="),
    ],
)
def test_what_cannot_be_promoted_is_refused_before_the_test_split_is_opened(
    promoted, registry, load_split, name, given, message
):
    with pytest.raises(UserError, match=message):
        promoted(name, **given)
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


def test_a_champion_of_other_classes_is_not_compared(promoted, registry, filled, load_split):
    """As many classes, but not the same: position 1 is another nut in each network."""
    champion = promoted("good")
    record(filled, "other", network(0.1), load_split, OTHER_CLASSES)
    promotion = promoted("other")
    assert not promotion.is_champion
    assert "other classes" in promotion.reason
    assert "almonds, pecans, walnuts" in promotion.reason
    assert registry.at(CHAMPION).version == champion.version
    assert registry.at(CHALLENGER).version == promotion.version
