"""The test split: predicted once a run, read from its records afterwards, judged without leaks."""

import numpy as np
import pytest

from nutclf.data.folder import Split
from nutclf.evaluate.predictions import prediction_table
from nutclf.track.evaluation import stored_file, stored_predictions, write_evaluation
from nutclf.track.models import Reloaded
from nutclf.track.promotion import judge_on_test
from nutclf.track.runs import study_run

CLASSES = ["almonds", "pecans", "walnuts"]
LABELS = np.array([0, 0, 1, 1, 2, 2])
PATHS = [f"test/{CLASSES[label]}/{i}.png" for i, label in enumerate(LABELS)]
WRONG = 5  # the one image that the model mistakes
COPY = {PATHS[0]: "train/almonds/7.png"}


class Model:
    """Says the class that a pixel names; takes the last for another."""

    def __init__(self):
        self.passes = 0

    def predict_on_batch(self, pixels):
        self.passes += 1
        said = pixels[:, 0, 0, 0].astype(int)
        return np.eye(3)[said] * 0.7 + 0.1


@pytest.fixture
def run(store):
    return study_run(store, store.experiment_id("nutclf"), "study", {})


@pytest.fixture
def judged(run):
    """Judges on the test split; `judged.model.passes` and `judged.asked` count."""

    def judged(leaks=dict):
        return judge_on_test(run, Reloaded(judged.model, CLASSES, 4, None), load, leaks)

    def load(split, size):
        judged.asked.append((split, size))
        said = LABELS.copy()
        said[WRONG] = 0
        pixels = np.broadcast_to(said[:, None, None, None], (6, 4, 4, 3))
        return Split(pixels, LABELS, PATHS, PATHS)

    judged.model, judged.asked = Model(), []
    return judged


def metrics_of(run):
    return run.client.get_run(run.run_id).data.metrics


def tags_of(run):
    return run.client.get_run(run.run_id).data.tags


def test_the_images_are_predicted_once_and_then_the_records_answer(judged, run):
    first = judged(lambda: COPY)
    assert first.with_leaks.share == 5 / 6
    assert judged.asked == [("test", 4)]
    assert judged(pytest.fail) == first
    assert (judged.model.passes, len(judged.asked)) == (1, 1)
    assert tags_of(run)["test_openings"] == "1"


def test_a_leak_counts_in_one_figure_only(judged, run):
    on_test = judged(lambda: COPY)
    assert (on_test.clean.successes, on_test.clean.n) == (4, 5)
    assert (on_test.with_leaks.successes, on_test.with_leaks.n) == (5, 6)
    assert metrics_of(run)["test_accuracy"] == 4 / 5
    assert metrics_of(run)["test_recall/almonds"] == 1
    assert list(stored_predictions(run, "test_with_leaks")["path"]) == PATHS
    assert list(stored_predictions(run, "test")["path"]) == PATHS[1:]
    sentence = on_test.sentence()
    assert sentence.startswith("Test accuracy 0.800 (4/5, ")
    assert "(test/almonds/0.png is train/almonds/7.png); with them 0.833 (5/6, " in sentence


def test_without_leaks_both_figures_are_one(judged, run):
    """An unreadable file is not among the images, and no leak."""
    on_test = judged(lambda: {"test/almonds/unreadable.png": "train/almonds/7.png"})
    assert on_test.leaks == {}
    assert on_test.clean == on_test.with_leaks
    assert "with them" not in on_test.sentence()
    assert metrics_of(run)["test_accuracy_with_leaks"] == metrics_of(run)["test_accuracy"] == 5 / 6
    assert metrics_of(run)["test_leaks"] == 0
    assert "test_leaks" not in tags_of(run)


def test_where_all_of_it_leaked_there_is_no_headline(judged, run):
    on_test = judged(lambda: dict.fromkeys(PATHS, "train/almonds/7.png"))
    assert on_test.clean is None
    assert "test_accuracy" not in metrics_of(run)
    assert metrics_of(run)["test_accuracy_with_leaks"] == 5 / 6
    assert on_test.sentence().startswith("No test accuracy: train or valid have every test image")
    assert "and 1 more" in on_test.sentence()
    assert judged(pytest.fail) == on_test


def test_records_from_before_leaks_were_looked_for_are_mended(judged, run):
    """Without opening the split again."""
    said = LABELS.copy()
    said[WRONG] = 0
    table = prediction_table(PATHS, LABELS, np.eye(3)[said] * 0.7 + 0.1, CLASSES)
    write_evaluation(run, "test", table, CLASSES, 5 / 6)
    assert metrics_of(run)["test_accuracy"] == 5 / 6
    on_test = judged(lambda: COPY)
    assert judged.asked == []
    assert metrics_of(run)["test_accuracy"] == on_test.clean.share == 4 / 5
    assert len(stored_predictions(run, "test")) == 5
    with stored_file(run, "confusion_matrix_test.json") as file:
        assert "5" not in file.read_text(encoding="utf-8")


def test_what_was_cut_short_is_done_again_without_opening_the_split(judged, run, monkeypatch):
    from nutclf.track import promotion

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(promotion, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            judged(lambda: COPY)
    on_test = judged(lambda: COPY)
    assert (on_test.clean.n, on_test.with_leaks.n) == (5, 6)
    assert (judged.model.passes, tags_of(run)["test_openings"]) == (1, "1")
    assert judged(pytest.fail) == on_test


def test_a_table_whose_answers_are_not_its_probabilities_is_refused(run, judged, monkeypatch):
    from nutclf.track import models as reload

    honest = reload.prediction_table

    def shifted(*arguments):
        table = honest(*arguments)
        return table.assign(y_pred=np.roll(table["y_pred"], 1))

    monkeypatch.setattr(reload, "prediction_table", shifted)
    with pytest.raises(ValueError, match="not in the same order"):
        judged()
    assert stored_predictions(run, "test") is None
