"""What is logged about a table of predictions: metrics from the argmax, and the confusion matrix.

Keras' own Precision and Recall threshold every softmax cell at 0.5 and can read 0.0 at an accuracy
of 1.0 (keras issue 5705), so precision, recall and F1 come from the argmax, through scikit-learn.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from nutclf.evaluate.predictions import labels, probabilities
from nutclf.evaluate.temperature import EPSILON

_SCORES = ("precision", "recall", "f1")


def classification_metrics(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """Every metric of a table of predictions, each finite and ready to log.

    Args:
      table: from `prediction_table`, at least one row.
      classes: all C class names, those that the table's truth lacks too.

    Returns:
      `accuracy`, `top3_accuracy`, `loss` (mean cross-entropy in nats, clipped as Keras does);
      `macro_*`, the plain mean over the classes present in the truth, and `weighted_*`, weighted by
      their images, of precision, recall and f1; and `precision/<class>`, `recall/<class>`,
      `f1/<class>` for all C classes. A ratio without a denominator is 0: so reads a class without
      an image, which is why `macro_*` leaves it out; `absent_classes` names it.
    """
    y_true, y_pred = labels(table, classes)
    y_prob = probabilities(table, classes)
    report = class_report(table, classes)
    present = report[report["support"] > 0]
    ranked = np.argsort(-y_prob, axis=1, kind="stable")  # ties as argmax breaks them: lower id
    metrics = {
        "accuracy": float(np.mean(y_true == y_pred)),
        "top3_accuracy": float(np.mean((ranked[:, :3] == y_true[:, None]).any(axis=1))),
        "loss": cross_entropy(y_prob, y_true),
    }
    for score in _SCORES:
        metrics[f"macro_{score}"] = float(present[score].mean())
        metrics[f"weighted_{score}"] = float(np.average(present[score], weights=present["support"]))
        metrics |= {f"{score}/{name}": float(value) for name, value in report[score].items()}
    return metrics


def class_report(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Precision, recall, f1 and support by class: C rows indexed by class name, in class order.

    Raises:
      ValueError: the table has no rows.
    """
    if not len(table):
        raise ValueError("the table of predictions has no rows, so there is nothing to measure")
    y_true, y_pred = labels(table, classes)
    columns = precision_recall_fscore_support(
        y_true, y_pred, labels=range(len(classes)), zero_division=0
    )
    return pd.DataFrame(dict(zip((*_SCORES, "support"), columns, strict=True)), index=list(classes))


def absent_classes(table: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """Classes without an image in this table; recall says nothing of them, macro skips them."""
    present = set(table["y_true"])
    return [name for name in classes if name not in present]


def cross_entropy(y_prob: np.ndarray, y_true: np.ndarray) -> float:
    """Mean negative log-likelihood in nats of class ids [N] under probabilities [N, C]."""
    of_truth = np.asarray(y_prob, dtype=np.float64)[np.arange(len(y_true)), y_true]
    return float(-np.log(np.clip(of_truth, EPSILON, 1 - EPSILON)).mean())


def confusion(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Counts of true class (row) by predicted class (column), int [C, C], in class order."""
    y_true, y_pred = labels(table, classes)
    if not len(table):  # scikit-learn refuses an empty truth
        return np.zeros((len(classes), len(classes)), dtype=np.int64)
    return confusion_matrix(y_true, y_pred, labels=range(len(classes)))


def check_consistent(matrix: np.ndarray, accuracy: float) -> None:
    """Holds a confusion matrix against the accuracy that the network itself reported.

    Raises:
      ValueError: trace/n and `accuracy` differ by more than 1e-6 (or `accuracy` is not a number):
        predictions were paired with the labels of other images, so every figure made of them lies.
    """
    counts = as_counts(matrix)
    diagonal = np.trace(counts) / counts.sum()
    if not abs(diagonal - accuracy) <= 1e-6:  # so written, NaN is refused too
        raise ValueError(
            f"the confusion matrix says accuracy {diagonal:.6f}, the network reported "
            f"{accuracy:.6f}: predictions and labels are not in the same order"
        )


def confusion_record(matrix: np.ndarray, classes: Sequence[str]) -> dict[str, list]:
    """The matrix as it is stored in JSON: `{"classes": [...], "matrix": [[...]]}`, rows true."""
    return {"classes": list(classes), "matrix": as_counts(matrix, len(classes)).tolist()}


def as_counts(matrix: np.ndarray, n_classes: int | None = None) -> np.ndarray:
    """Any confusion matrix as int64 [C, C].

    Raises:
      ValueError: it is not square, not of `n_classes`, not whole counts of 0 or more, or all zero.
    """
    given = np.asarray(matrix)
    size = len(given) if n_classes is None else n_classes
    if given.ndim != 2 or given.shape != (size, size):
        raise ValueError(
            f"the confusion matrix is {list(given.shape)}; it must be [{size}, {size}]"
        )
    if given.dtype.kind not in "iuf" or not np.array_equal(given, np.floor(given)):
        raise ValueError("a confusion matrix holds whole counts; pass it before normalising")
    if (given < 0).any() or not np.isfinite(given).all() or not given.any():
        raise ValueError("a confusion matrix holds counts of 0 or more, and at least one image")
    return given.astype(np.int64)
