"""Folds for cross-validation: stratified by class, and no group of like images is ever split."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from nutclf.data.duplicates import groups_of_like, perceptual_hashes
from nutclf.data.folder import Split
from nutclf.errors import UserError


def make_folds(train: Split, k: int, seed: int, refusal: str) -> np.ndarray:
    """The fold of each training image, int64 [N]; images that show the same thing share one.

    Raises `UserError` when a class has too few images: `refusal`, with the reason for its `{}`.
    """
    groups = groups_of_like(train.keys, perceptual_hashes(train.pixels))
    try:
        return assign_folds(train.labels, groups, k, seed)
    except ValueError as error:
        raise UserError(refusal.format(error)) from error


def assign_folds(labels: np.ndarray, groups: Sequence[object], k: int, seed: int) -> np.ndarray:
    """The fold in which each image is held out, int64 [N], 0..k-1, from class ids [N].

    Images that share one of the N `groups` are held out together. Raises `ValueError` when a class
    has fewer groups than there are folds, so some fold would lack it.
    """
    labels = np.asarray(labels)
    names = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
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
