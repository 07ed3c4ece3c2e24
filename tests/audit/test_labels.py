"""The ranking of labels, on tables whose wrong labels are known."""

import numpy as np
import pandas as pd
import pytest

from nutclf.audit.labels import COLUMNS, rank_suspects
from nutclf.evaluate.predictions import prediction_table

CLASSES = ("almonds", "pecans", "walnuts")


def table(y_true, y_prob):
    paths = [f"train/{i}.png" for i in range(len(y_true))]
    return prediction_table(paths, np.array(y_true), np.array(y_prob, float), CLASSES)


@pytest.fixture
def judged():
    """Ten images per class, 0.8 sure; number 4 is no almond, surely; number 17 no pecan, maybe."""
    y_true = np.repeat([0, 1, 2], 10)
    y_prob = np.full((30, 3), 0.1)
    y_prob[np.arange(30), y_true] = 0.8
    y_prob[4] = (0.01, 0.04, 0.95)
    y_prob[17] = (0.85, 0.1, 0.05)
    return y_true, y_prob


def test_wrong_labels_are_found_the_surest_first(judged):
    found = rank_suspects(table(*judged), CLASSES)
    assert tuple(found.columns) == COLUMNS
    assert list(found["path"]) == ["train/4.png", "train/17.png"]
    assert list(found["label"]) == ["almonds", "pecans"]
    assert list(found["looks_like"]) == ["walnuts", "almonds"]
    assert list(found["p_label"]) == [0.01, 0.1]
    assert list(found["p_looks_like"]) == [0.95, 0.85]
    # cleanlab's normalised margin: (p_label - p_other + 1) / 2.
    np.testing.assert_allclose(found["score"], [(0.01 - 0.95 + 1) / 2, (0.1 - 0.85 + 1) / 2])


def test_the_order_of_the_rows_does_not_matter(judged):
    whole = table(*judged)
    shuffled = whole.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(rank_suspects(whole, CLASSES), rank_suspects(shuffled, CLASSES))


def test_an_unsure_mistake_is_no_suspect(judged):
    y_true, y_prob = judged
    y_prob[25] = (0.4, 0.25, 0.35)
    assert "train/25.png" not in set(rank_suspects(table(y_true, y_prob), CLASSES)["path"])


def test_labels_that_models_agree_with_give_no_suspect(judged):
    found = rank_suspects(table(judged[0], np.eye(3)[judged[0]]), CLASSES)
    assert found.empty
    assert tuple(found.columns) == COLUMNS
