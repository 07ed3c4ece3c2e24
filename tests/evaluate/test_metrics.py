import math

import numpy as np
import pytest

from nutclf.evaluate.metrics import (
    best_renaming,
    check_consistent,
    check_matrix,
    classification_metrics,
    confusion,
    confusion_record,
    renaming_gain_p,
)
from nutclf.evaluate.predictions import prediction_table

ABC = ["a", "b", "c"]
CLASSES = [f"nut {letter}" for letter in "abcdefghij"]
NUTS = ["almonds", "pecans", "walnuts"]
SWAP = np.array([[0, 8, 0], [8, 0, 0], [0, 0, 9]])
# Rows true: a 3 of 4 right, b 2 of 3, c 1 of 3.
MATRIX = [[3, 1, 0], [0, 2, 1], [1, 1, 1]]


def table_of(matrix, classes=ABC, sure=0.8):
    """One row per image; the predicted class gets `sure`, the others share the rest."""
    pairs = [(i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) for _ in range(n)]
    y_true, y_pred = np.array(pairs).T
    prob = np.full((len(pairs), len(classes)), (1 - sure) / (len(classes) - 1))
    prob[np.arange(len(pairs)), y_pred] = sure
    return prediction_table([f"{k}.jpg" for k in range(len(pairs))], y_true, prob, classes)


def test_golden_three_class_matrix():
    table = table_of(MATRIX)
    precision, recall = [3 / 4, 2 / 4, 1 / 2], [3 / 4, 2 / 3, 1 / 3]
    f1 = [3 / 4, 4 / 7, 2 / 5]  # 2 pr / (p + r)
    expected = {
        "accuracy": 6 / 10,
        "top3_accuracy": 1.0,
        "loss": -(6 * math.log(0.8) + 4 * math.log(0.1)) / 10,
        "macro_precision": sum(precision) / 3,
        "macro_recall": sum(recall) / 3,
        "macro_f1": sum(f1) / 3,
        "weighted_precision": (4 * 3 / 4 + 3 * 2 / 4 + 3 * 1 / 2) / 10,
        "weighted_recall": 6 / 10,
        "weighted_f1": (4 * 3 / 4 + 3 * 4 / 7 + 3 * 2 / 5) / 10,
    }
    for i, name in enumerate(ABC):
        expected |= {f"precision/{name}": precision[i], f"recall/{name}": recall[i]}
        expected[f"f1/{name}"] = f1[i]
    metrics = classification_metrics(table, ABC)
    assert metrics == pytest.approx(expected)
    assert all(type(value) is float for value in metrics.values())
    shuffled = table.sample(frac=1, random_state=3)
    assert classification_metrics(shuffled, ABC) == pytest.approx(metrics)


def test_a_low_but_highest_probability_counts_as_right():
    # Keras' Precision and Recall threshold at 0.5 and read 0.0 on these four rows.
    classes = [f"class {i}" for i in range(10)]
    prob = np.full((4, 10), 0.07)
    prob[np.arange(4), [0, 3, 6, 9]] = 0.37
    table = prediction_table(list("wxyz"), np.array([0, 3, 6, 9]), prob, classes)
    metrics = classification_metrics(table, classes)
    assert metrics["accuracy"] == metrics["macro_recall"] == metrics["macro_precision"] == 1.0


def test_an_absent_class_keeps_its_row_and_leaves_the_macro():
    table = table_of([[3, 1, 0], [0, 2, 2], [0, 0, 0]])
    metrics = classification_metrics(table, ABC)
    assert metrics["macro_recall"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert metrics["macro_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics["recall/c"] == 0.0 and all(map(math.isfinite, metrics.values()))
    assert confusion(table, ABC).shape == (3, 3)


def test_a_class_never_predicted_counts_in_the_macro():
    metrics = classification_metrics(table_of([[2, 0, 0], [0, 2, 0], [1, 1, 0]]), ABC)
    assert metrics["precision/c"] == 0.0
    assert metrics["macro_recall"] == pytest.approx(2 / 3)


def test_the_loss_is_clipped_as_keras_clips():
    table = prediction_table(["x"], np.array([0]), np.array([[0.0, 1.0]]), ["a", "b"])
    assert classification_metrics(table, ["a", "b"])["loss"] == pytest.approx(-math.log(1e-7))


@pytest.mark.parametrize(("prob", "right"), [((0.4, 0.3, 0.2, 0.1), 0.75), ((0.25,) * 4, 0.75)])
def test_top3_takes_the_three_most_probable_and_the_first_of_equals(prob, right):
    y_true = np.array([0, 0, 1, 3])
    table = prediction_table(list("wxyz"), y_true, np.tile(prob, (4, 1)), list("abcd"))
    assert classification_metrics(table, list("abcd"))["top3_accuracy"] == right


def test_an_empty_table_has_no_metrics_and_a_matrix_of_zeros():
    empty = table_of(MATRIX).iloc[:0]
    with pytest.raises(ValueError, match="no rows"):
        classification_metrics(empty, ABC)
    assert confusion(empty, ABC).tolist() == [[0] * 3] * 3


def test_confusion_has_true_rows_in_the_order_of_the_classes():
    assert confusion(table_of(MATRIX), ABC).tolist() == MATRIX
    swapped = [[2, 0, 1], [1, 3, 0], [1, 1, 1]]  # a and b change places in rows and columns
    assert confusion(table_of(MATRIX), ["b", "a", "c"]).tolist() == swapped


def test_a_matrix_agrees_with_the_accuracy_of_the_same_pass():
    check_consistent(np.array(MATRIX), float(np.float32(0.6)))  # Keras reports float32


@pytest.mark.parametrize("accuracy", [0.6 + 2e-6, 0.6 - 2e-6, 1.0, math.nan])
def test_labels_in_another_order_than_the_predictions_are_refused(accuracy):
    with pytest.raises(ValueError, match="order"):
        check_consistent(np.array(MATRIX), accuracy)


def test_the_record_is_plain_json():
    record = confusion_record(np.array(MATRIX), ABC)
    assert record == {"classes": ABC, "matrix": MATRIX}
    assert type(record["matrix"][0][0]) is int
    with pytest.raises(ValueError, match=r"must be \[2, 2\]"):
        confusion_record(np.array(MATRIX), ["a", "b"])


@pytest.mark.parametrize(
    "matrix", [[[1, 2]], [[1.5, 0], [0, 1]], [[-1, 0], [0, 2]], [[0, 0], [0, 0]], [["1"]], [1]]
)
def test_what_is_no_confusion_matrix_is_refused(matrix):
    with pytest.raises(ValueError, match="confusion matrix"):
        check_consistent(np.array(matrix), 0.5)


def matrix_of(y_true, y_pred, n=10):
    return np.bincount(y_true * n + y_pred, minlength=n * n).reshape(n, n)


def test_the_best_renaming_prefers_not_to_move():
    assert best_renaming(np.array([[5, 5, 0], [0, 5, 5], [5, 0, 5]])) == (0, 1, 2)
    # A tie, 5 right either way, in which SciPy alone returns (0, 2, 1).
    assert best_renaming(np.array([[2, 1, 1], [0, 1, 2], [1, 1, 2]])) == (0, 1, 2)
    assert best_renaming(np.array([[0, 5, 0], [5, 0, 0], [0, 0, 5]])) == (1, 0, 2)


def test_one_image_outweighs_any_number_of_moves():
    counts = np.full((6, 6), 3) + np.eye(6, dtype=int)[np.roll(np.arange(6), -1)]
    assert best_renaming(counts) == (1, 2, 3, 4, 5, 0)


def test_the_price_of_choosing_a_renaming():
    # A swap among 3 classes with 8 + 8 images for it, none against: 2^-16 times 3 swaps.
    assert renaming_gain_p(SWAP, (1, 0, 2)) == pytest.approx(3 / 2**16)
    # A full cycle of 4 classes has 9 derangements.
    cycle = np.roll(np.eye(4, dtype=int) * 5, 1, axis=1)
    assert renaming_gain_p(cycle, (1, 2, 3, 0)) == pytest.approx(9 / 2**20)
    assert renaming_gain_p(cycle, (0, 1, 2, 3)) == 1


def test_a_good_matrix_passes_with_its_accuracy():
    matrix = np.diag([9, 8, 9])
    matrix[1, 0] = 1
    assert check_matrix(matrix, NUTS) == (
        "26 of 27 images are right (0.963); no renaming of the classes has more."
    )


def test_swapped_classes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"9 of 25 .* but 25 with the classes renamed") as caught:
        check_matrix(SWAP, NUTS)
    assert "almonds appears as pecans, pecans appears as almonds." in str(caught.value)
    assert "walnuts appears" not in str(caught.value)


def test_a_shifted_class_list_of_the_published_split_is_refused():
    y_true = np.repeat(np.arange(10), 5)
    with pytest.raises(ValueError, match=r"0 of 50 .* but 50 with"):
        check_matrix(matrix_of(y_true, (y_true + 1) % 10), CLASSES)


def test_an_honest_confusion_is_no_renaming():
    # The cyclic renaming gains 2 images of 38.
    matrix = np.array([[6, 6, 0], [0, 6, 7], [7, 0, 6]])
    assert check_matrix(matrix, NUTS).endswith(
        "renaming of the classes has 20, which luck explains."
    )


@pytest.mark.parametrize("n", [50, 1163])
@pytest.mark.parametrize("evenness", [0.05, 0.3, 10])
def test_poor_networks_pass(n, evenness):
    """Guesses that ignore the image, over all classes or nearly always one of them.

    On 1163 images a sign test with a fair coin would refuse one in five of the latter.
    """
    rng = np.random.default_rng(0)
    for _ in range(200):
        y_true = np.repeat(np.arange(10), rng.multinomial(n, rng.dirichlet(np.full(10, 20))))
        y_pred = rng.choice(10, n, p=rng.dirichlet(np.full(10, evenness)))
        check_matrix(matrix_of(y_true, y_pred), CLASSES)


def test_a_network_that_answers_one_class_passes():
    # Renaming turns 2 right into 30, yet the answer never depends on the image.
    assert "which luck explains" in check_matrix(np.array([[0, 30], [0, 2]]), ["a", "b"])


def test_column_totals_never_make_luck_look_like_evidence():
    """58 of 100 tosses: luck of a fair coin (p = 0.067), not of one of 0.45 that they suggest."""
    assert "which luck explains" in check_matrix(np.array([[42, 42], [16, 0]]), ["a", "b"])


def test_a_thousand_classes_are_not_too_many():
    shifted = np.roll(np.eye(1000, dtype=int) * 5, 1, axis=1)
    with pytest.raises(ValueError, match="classes renamed"):
        check_matrix(shifted, [f"class {i}" for i in range(1000)])
    guesses = np.random.default_rng(0).multinomial(4, np.full(1000, 1e-3), size=1000)
    assert "which luck explains" in check_matrix(guesses, [f"class {i}" for i in range(1000)])


def test_rates_and_misfits_are_refused():
    with pytest.raises(ValueError, match="whole counts"):
        check_matrix(np.array([[0.9, 0.1], [0.2, 0.8]]), ["a", "b"])
    with pytest.raises(ValueError, match=r"must be \[2, 2\]"):
        check_matrix(np.eye(3), ["a", "b"])
