"""What is logged about a table of predictions: metrics, the confusion matrix, and its diagnosis.

Keras' own Precision and Recall threshold every softmax cell at 0.5 and can read 0.0 at an accuracy
of 1.0 (keras issue 5705), so precision, recall and F1 come from the argmax, through scikit-learn.
"""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from nutclf.evaluate.intervals import SIGNIFICANCE
from nutclf.evaluate.predictions import labels, probabilities
from nutclf.evaluate.temperature import EPSILON


def classification_metrics(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """Every metric of a table of predictions, each finite; `ValueError` when it has no rows.

    `accuracy`, `top3_accuracy` and `loss` (mean cross-entropy in nats, clipped as Keras does); of
    precision, recall and f1 `macro_*`, the mean over the classes present in the truth, `weighted_*`
    by their images, and `<name>/<class>` for all classes, 0 where the denominator is.
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
    scores = by_class(table, classes)
    support = scores.pop("images")
    for name, values in scores.items():
        metrics[f"macro_{name}"] = fmean(values[support > 0])  # exactly 0.84, not 0.8400000000001
        metrics[f"weighted_{name}"] = float(np.average(values, weights=support))
        metrics |= {f"{name}/{c}": float(v) for c, v in values.items()}
    return metrics


def by_class(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Columns precision, recall, f1 and images (how many), a row for each class by its name."""
    columns = precision_recall_fscore_support(
        *labels(table, classes), labels=range(len(classes)), zero_division=0
    )
    index = pd.Index(list(classes), name="class")
    names = "precision", "recall", "f1", "images"
    return pd.DataFrame(dict(zip(names, columns, strict=True)), index=index)


def cross_entropy(y_prob: np.ndarray, y_true: np.ndarray) -> float:
    """Mean negative log-likelihood in nats of class ids [N] under probabilities [N, C].

    Not `sklearn.metrics.log_loss`, which clips at 2e-16 and warns of rows rounded to float32.
    """
    of_truth = np.asarray(y_prob, dtype=np.float64)[np.arange(len(y_true)), y_true]
    return float(-np.log(np.clip(of_truth, EPSILON, 1 - EPSILON)).mean())


def confusion(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Counts of true class (row) by predicted class (column), int [C, C], in class order."""
    if not len(table):  # scikit-learn refuses an empty truth
        return np.zeros((len(classes), len(classes)), dtype=np.int64)
    return confusion_matrix(*labels(table, classes), labels=range(len(classes)))


def confusion_record(matrix: np.ndarray, classes: Sequence[str]) -> dict[str, list]:
    """The matrix as it is stored in JSON: `{"classes": [...], "matrix": [[...]]}`, rows true."""
    return {"classes": list(classes), "matrix": as_counts(matrix, len(classes)).tolist()}


def as_counts(matrix: np.ndarray, n_classes: int | None = None) -> np.ndarray:
    """Any confusion matrix as int64 [C, C]; `ValueError` unless it is one, of `n_classes`."""
    given = np.asarray(matrix)
    size, counts = n_classes or len(given), given.astype(np.int64)
    whole = np.array_equal(counts, given) and (counts >= 0).all() and counts.any()
    if given.shape != (size, size) or not whole:
        raise ValueError(
            f"a confusion matrix {given.dtype} {list(given.shape)} must be [{size}, {size}], of "
            "whole counts of 0 or more, and hold an image; pass it before normalising"
        )
    return counts


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


def check_matrix(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """One sentence on a matrix; `ValueError` where renamed classes fit better, beyond luck."""
    counts = as_counts(matrix, len(classes))
    right, n, renaming = int(counts.trace()), int(counts.sum()), best_renaming(counts)
    renamed = int(counts[np.arange(len(counts)), renaming].sum())
    found = f"{right} of {n} images are right ({right / n:.3f})"
    if renamed == right:
        return f"{found}; no renaming of the classes has more."
    p = renaming_gain_p(counts, renaming)
    if p >= SIGNIFICANCE:
        return f"{found}; the best renaming of the classes has {renamed}, which luck explains."
    raise ValueError(
        f"{found}, but {renamed} with the classes renamed (p = {p:.2g}): "
        f"{moves(renaming, classes)}. The class list was read in another order than the network's."
    )


def best_renaming(counts: np.ndarray) -> tuple[int, ...]:
    """For each true class the predicted one that stands for it, so that the most images are right.

    One to one; a class stands for itself where nothing is gained.
    """
    # The unit on the diagonal decides ties for "no move", and can never outweigh an image.
    gain = counts * (len(counts) + 1) + np.eye(len(counts), dtype=np.int64)
    return tuple(linear_sum_assignment(gain, maximize=True)[1].tolist())


def renaming_gain_p(counts: np.ndarray, renaming: Sequence[int]) -> float:
    """Upper bound on the probability that luck favours some renaming of as many classes this much.

    A sign test: each image of a moved class that is right under exactly one of the two namings is a
    coin toss if neither is truer. Predictions that ignore the image, as of a network that always
    answers one class, weight the coin by the column totals; the kinder coin counts (Hoeffding, Ann.
    Math. Stat. 27 (1956) 713). The p-value is multiplied by how many renamings there are, choose(C,
    m) times the derangements of m (Boole).
    """
    moved = [i for i, j in enumerate(renaming) if i != j]
    to, m, columns = [renaming[i] for i in moved], len(moved), counts.sum(axis=0)
    renamed, tosses = counts[moved, to].sum(), counts[moved, to] + counts[moved, moved]
    if not tosses.sum():
        return 1.0
    coins = columns[to] / np.maximum(columns[to] + columns[moved], 1)
    one = binom.logsf(renamed - 1, tosses.sum(), max(0.5, np.average(coins, weights=tosses)))
    derangements = sum((-1) ** k * math.factorial(m) // math.factorial(k) for k in range(m + 1))
    # In logarithms: with 171 classes there are more renamings than a float can count.
    return math.exp(min(0.0, float(one) + math.log(math.comb(len(counts), m) * derangements)))


def moves(renaming: Sequence[int], classes: Sequence[str]) -> str:
    """Which class appears under which name, e.g. "almonds appears as pecans"."""
    pairs = [f"{classes[i]} appears as {classes[j]}" for i, j in enumerate(renaming) if i != j]
    return ", ".join(pairs)
