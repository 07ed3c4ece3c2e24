"""Folds for cross-validation: stratified by class, and no group of like images is ever split."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold


def assign_folds(labels: np.ndarray, groups: Sequence[object], k: int, seed: int) -> np.ndarray:
    """The fold in which each image is held out.

    Args:
      labels: class ids, int [N].
      groups: N hashable names; images that share one are held out together.
      k: folds, 2 or more, and no more than the images of the rarest class.
      seed: of the shuffle.

    Returns:
      int64 [N], 0..k-1.

    Raises:
      ValueError: a class has fewer groups than there are folds, so it would be missing somewhere.
    """
    labels, names = (
        np.asarray(labels),
        np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1],
    )
    fewest = min(len(np.unique(names[labels == label])) for label in np.unique(labels))
    if fewest < k:
        raise ValueError(
            f"{k} folds need {k} different images of every class; the rarest class has {fewest}"
        )
    folds = np.empty(len(labels), np.int64)
    splitter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels, names)):
        folds[held_out] = fold
    return folds
