"""Which labels are probably wrong: cleanlab's ranking of out-of-fold probabilities.

C. Northcutt, L. Jiang, I. Chuang, Confident Learning, J. Artif. Intell. Res. 70 (2021) 1373-1411.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nutclf.evaluate.predictions import labels, probabilities

COLUMNS = ("path", "label", "looks_like", "score", "p_label", "p_looks_like")


def rank_suspects(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The images whose label is probably wrong, the surest first.

    An image is a suspect where the probability of another class exceeds the mean that images of
    that class get for it (confident learning). Suspects are ranked by the margin between the
    probability of the label and of the likeliest other class, which brings images of another known
    class to the top, and images that are no class at all further down.

    Args:
      table: from `prediction_table`; every probability from a model that did not learn from that
        image, or it agrees with any label.
      classes: all C class names.

    Returns:
      A row a suspect with `COLUMNS`: path, given label, the likeliest other class, the score, 0
      (surely wrong) to 1, and the probabilities of the label and of that other class.

    Raises:
      ValueError: the table has no rows, or fewer than two classes.
    """
    y_true, _ = labels(table, classes)
    if len(np.unique(y_true)) < 2:
        raise ValueError(f"{len(table)} images of fewer than two classes: nothing to confuse")
    y_prob = probabilities(table, classes)
    suspected, score = _confident_learning(y_true, y_prob / y_prob.sum(axis=1, keepdims=True))
    rows = np.arange(len(y_true))
    others = y_prob.copy()
    others[rows, y_true] = -1
    other = others.argmax(axis=1)
    names = np.array(list(classes), dtype=object)
    ranked = pd.DataFrame(
        {
            "path": table["path"].to_numpy(),
            "label": names[y_true],
            "looks_like": names[other],
            "score": score,
            "p_label": y_prob[rows, y_true],
            "p_looks_like": y_prob[rows, other],
        }
    )[suspected]
    # By path where scores are equal, so that the order does not depend on the table's.
    return ranked.sort_values(["score", "path"], ignore_index=True)


def _confident_learning(y_true: np.ndarray, y_prob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each label is suspect, bool [N], and its score [N]."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    # One process: cleanlab would fork this one, and TensorFlow's threads do not survive that.
    suspected = find_label_issues(y_true, y_prob, filter_by="confident_learning", n_jobs=1)
    return suspected, get_label_quality_scores(y_true, y_prob, method="normalized_margin")
