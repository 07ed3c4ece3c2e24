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


def classification_metrics(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """Every metric of a table of predictions, each finite and ready to log.

    Args:
      table: from `prediction_table`.
      classes: all C class names, including those without an image in the table.

    Returns:
      `accuracy`, `top3_accuracy`, `loss` (mean cross-entropy in nats, clipped as Keras does);
      `macro_*`, the plain mean over the classes present in the truth, and `weighted_*`, weighted by
      their images, of precision, recall and f1; and `precision/<class>`, `recall/<class>`,
      `f1/<class>` for all C classes, 0 where the denominator is.

    Raises:
      ValueError: the table has no rows.
    """
    if not len(table):
        raise ValueError("the table of predictions has no rows, so there is nothing to measure")
    (y_true, y_pred), y_prob = labels(table, classes), probabilities(table, classes)
    # Ties go to the lower id, as in argmax; `top_k_accuracy_score` gives them to the higher one.
    ranked = np.argsort(-y_prob, axis=1, kind="stable")
    metrics = {
        "accuracy": float(np.mean(y_true == y_pred)),
        "top3_accuracy": float(np.mean((ranked[:, :3] == y_true[:, None]).any(axis=1))),
        "loss": cross_entropy(y_prob, y_true),
    }
    *scores, support = precision_recall_fscore_support(
        y_true, y_pred, labels=range(len(classes)), zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1"), scores, strict=True):
        metrics[f"macro_{name}"] = float(values[support > 0].mean())
        metrics[f"weighted_{name}"] = float(np.average(values, weights=support))
        metrics |= {f"{name}/{c}": float(v) for c, v in zip(classes, values, strict=True)}
    return metrics


def cross_entropy(y_prob: np.ndarray, y_true: np.ndarray) -> float:
    """Mean negative log-likelihood in nats of class ids [N] under probabilities [N, C].

    Not `sklearn.metrics.log_loss`, which clips at 2e-16 and warns of rows rounded to float32.
    """
    of_truth = np.asarray(y_prob, dtype=np.float64)[np.arange(len(y_true)), y_true]
    return float(-np.log(np.clip(of_truth, EPSILON, 1 - EPSILON)).mean())


def confusion(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Counts of true class (row) by predicted class (column), int [C, C], in class order."""
    y_true, y_pred = labels(table, classes)
    if not len(table):  # scikit-learn refuses an empty truth
        return np.zeros((len(classes), len(classes)), dtype=np.int64)
    return confusion_matrix(y_true, y_pred, labels=range(len(classes)))


def check_consistent(matrix: np.ndarray, accuracy: float) -> None:
    """Raises `ValueError` unless trace/n is the accuracy that the network itself reported, to 1e-6.

    Otherwise predictions were paired with the labels of other images, and every figure is wrong.
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

    Raises `ValueError` unless it is square, of `n_classes`, and whole counts that are not all zero.
    """
    given = np.asarray(matrix)
    size = len(given) if n_classes is None else n_classes
    if given.shape != (size, size) or given.dtype.kind not in "iuf":
        raise ValueError(
            f"the confusion matrix is {given.dtype} {list(given.shape)}; it must be "
            f"[{size}, {size}], of numbers"
        )
    counts = given.astype(np.int64)
    if not np.array_equal(counts, given) or (counts < 0).any() or not counts.any():
        raise ValueError(
            "a confusion matrix holds whole counts of 0 or more, and at least one image; pass it "
            "before normalising"
        )
    return counts
