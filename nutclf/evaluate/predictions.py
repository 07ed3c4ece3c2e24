"""The table of predictions: each row carries its image's path, true class and probabilities.

Metrics, comparisons and figures read this table and nothing else, so no code pairs two sequences by
the order in which a loader happened to give them.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from os import PathLike

import numpy as np
import pandas as pd

IDENTITY = ("path", "y_true", "y_pred", "fold")
"""Columns that are not classes; only cross-validated predictions have `fold`."""


def prediction_table(
    paths: Sequence[str],
    y_true: np.ndarray,
    y_prob: np.ndarray,
    classes: Sequence[str],
    fold: np.ndarray | None = None,
) -> pd.DataFrame:
    """Builds the table of class ids [N] and probabilities [N, C], `fold` being int [N].

    N rows in the order given: `path`, `y_true` and `y_pred` (class names; `y_pred` is the argmax,
    the first class on a tie), `fold` where given, then one float64 column per class. Raises
    `ValueError` when paths or classes are not unique, or ids or probabilities impossible.
    """
    names, files = list(classes), [str(path) for path in paths]
    truth, prob = np.asarray(y_true), np.asarray(y_prob, dtype=np.float64)
    if len(set(names)) < len(names) or set(names) & set(IDENTITY):
        raise ValueError(f"classes are {names}; each must be unique, and none of {IDENTITY}")
    if twice := [path for path, n in Counter(files).items() if n > 1]:
        raise ValueError(f"path {twice[0]!r} comes more than once; each must be unique")
    outside = truth[(truth < 0) | (truth >= len(names))]
    if outside.size:
        raise ValueError(f"y_true holds {outside[0]}; class ids run from 0 to {len(names) - 1}")
    wrong = ~(np.abs(prob.sum(axis=1) - 1) <= 1e-3) | (prob < 0).any(axis=1)  # NaN is wrong too
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"y_prob row {row} is no distribution: it sums to {prob[row].sum():.6g}, {prob[row]}"
        )
    label = np.array(names, dtype=object)
    head = {"path": files, "y_true": label[truth.astype(int)], "y_pred": label[prob.argmax(axis=1)]}
    held_out = {} if fold is None else {"fold": np.asarray(fold, dtype=np.int64)}
    return pd.DataFrame(head | held_out | dict(zip(names, prob.T, strict=True)))


def classes_of(table: pd.DataFrame) -> list[str]:
    """Class names of a table in the model's order."""
    return [column for column in table.columns if column not in IDENTITY]


def labels(table: pd.DataFrame, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted class ids of a table, two int64 [N], in the order of `classes`."""
    ids = {name: i for i, name in enumerate(classes)}
    if unknown := sorted((set(table["y_true"]) | set(table["y_pred"])) - set(ids)):
        raise ValueError(f"the table names {unknown}, which are not among the classes {list(ids)}")
    return tuple(table[column].map(ids).to_numpy(np.int64) for column in ("y_true", "y_pred"))


def probabilities(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Class probabilities of a table, float64 [N, C], columns in the order of `classes`."""
    names = list(classes)
    if set(names) != set(classes_of(table)):
        raise ValueError(f"the table has classes {classes_of(table)}; asked for {names}")
    return table[names].to_numpy(np.float64)


def write_predictions(table: pd.DataFrame, path: str | PathLike) -> None:
    """Writes the table as UTF-8 CSV: numbers in their shortest exact form, all text quoted."""
    # Quotes keep commas, quotes and line breaks within paths and class names.
    table.to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def read_predictions(path: str | PathLike) -> pd.DataFrame:
    """Reads what `write_predictions` wrote: the same rows, names and float64 bits."""
    # All as text first: "NA" and "007" stay names, and Python's own float() is exact to the bit.
    table = pd.read_csv(path, dtype=object, keep_default_na=False)
    if missing := [column for column in IDENTITY[:3] if column not in table.columns]:
        raise ValueError(f"{path} is no table of predictions: it lacks the columns {missing}")
    types = dict.fromkeys(IDENTITY, "str") | {"fold": np.int64}
    return table.astype({column: types.get(column, np.float64) for column in table.columns})
