import numpy as np
import pandas as pd
import pytest

from nutclf.evaluate.predictions import (
    classes_of,
    labels,
    prediction_table,
    probabilities,
    read_predictions,
    write_predictions,
)

CLASSES = ["pecans", "almonds", "walnuts"]  # not alphabetical: the model's order is what counts
PATHS = ["test/a/1.jpg", "test/b/2.jpg", "test/c/3.jpg"]
Y_TRUE = np.array([0, 2, 1])
Y_PROB = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.3, 0.2]])


def table(**changes):
    given = {"paths": PATHS, "y_true": Y_TRUE, "y_prob": Y_PROB, "classes": CLASSES} | changes
    return prediction_table(**given)


def test_rows_carry_path_names_and_one_column_a_class():
    made = table()
    assert list(made.columns) == ["path", "y_true", "y_pred", "pecans", "almonds", "walnuts"]
    assert list(made["path"]) == PATHS
    assert list(made["y_true"]) == ["pecans", "walnuts", "almonds"]
    assert list(made["y_pred"]) == ["pecans", "walnuts", "pecans"]
    assert made["walnuts"].tolist() == [0.1, 0.6, 0.2]


def test_ties_go_to_the_first_class_and_rounding_to_float32_is_taken():
    made = table(y_prob=np.full((3, 3), 1 / 3) + 0.0003)
    assert set(made["y_pred"]) == {"pecans"}


def test_fold_is_kept_between_the_names_and_the_probabilities():
    made = table(fold=np.array([2, 0, 1]))
    assert list(made.columns)[3] == "fold" and made["fold"].tolist() == [2, 0, 1]
    assert classes_of(made) == CLASSES


def test_labels_and_probabilities_follow_the_order_asked_for():
    order = ["walnuts", "pecans", "almonds"]
    assert [ids.tolist() for ids in labels(table(), order)] == [[1, 0, 2], [1, 0, 1]]
    np.testing.assert_array_equal(probabilities(table(), order), Y_PROB[:, [2, 0, 1]])


@pytest.mark.parametrize("read", [labels, probabilities])
def test_a_table_of_other_classes_is_refused(read):
    with pytest.raises(ValueError, match="classes"):
        read(table(), ["pecans", "almonds", "coconuts"])


def test_csv_round_trip_is_exact(tmp_path):
    names = ["nuts, mixed\nand salted", "NA", 'the "best"', "007", "carriage\rreturn"]
    rng = np.random.default_rng(0)
    prob = rng.dirichlet(np.full(5, 0.01), size=40)  # many values near 1e-300 and near 1
    paths = [f"a,b/{i}\n'\".jpg" for i in range(38)] + ["nan", "0012"]
    made = prediction_table(paths, rng.integers(0, 5, 40), prob, names, fold=np.arange(40) % 5)
    write_predictions(made, tmp_path / "predictions.csv")
    back = read_predictions(tmp_path / "predictions.csv")
    pd.testing.assert_frame_equal(back, made, check_exact=True)
    assert probabilities(back, names).tobytes() == prob.tobytes()


def test_probabilities_of_exactly_0_and_1_stay_numbers(tmp_path):
    write_predictions(table(y_prob=np.eye(3)), tmp_path / "p.csv")
    assert read_predictions(tmp_path / "p.csv")["pecans"].dtype == np.float64


def test_a_csv_that_is_no_table_of_predictions_is_refused(tmp_path):
    (tmp_path / "p.csv").write_text("path,score\na,1\n")
    with pytest.raises(ValueError, match="y_true"):
        read_predictions(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"paths": PATHS[:2]}, "length"),
        ({"y_true": Y_TRUE[:2]}, "length"),
        ({"y_prob": Y_PROB[:2]}, "length"),
        ({"fold": np.array([0, 1])}, "length"),
        ({"paths": [PATHS[0], PATHS[1], PATHS[0]]}, "test/a/1.jpg"),
        ({"classes": ["pecans", "almonds", "pecans"]}, "must be unique"),
        ({"classes": ["pecans", "almonds", "y_pred"]}, "none of"),
        ({"classes": CLASSES[:2]}, "class ids run from 0 to 1"),
        ({"classes": [*CLASSES, "coconuts"]}, "zip"),
        ({"y_true": np.array([0, 3, 1])}, "holds 3"),
        ({"y_true": np.array([0, -1, 1])}, "holds -1"),
        ({"y_prob": Y_PROB * [[1], [100], [1]]}, "row 1 .* sums to 100"),
        ({"y_prob": Y_PROB * [[1], [1], [1.01]]}, "row 2"),
        ({"y_prob": np.array([[1.5, -0.5, 0.0]] + [[1, 0, 0]] * 2)}, "row 0"),
        (
            {"y_prob": np.array([[0.5, 0.5, 0.0], [np.nan, 0, 1], [1, 0, 0]])},
            r"row 1 .* sums to nan",
        ),
    ],
)
def test_impossible_predictions_are_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        table(**changes)
