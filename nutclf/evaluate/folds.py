"""Folds for cross-validation: stratified by class, and no group of like images is ever split."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from nutclf.data.folder import Split
from nutclf.data.likeness import groups_of_like, perceptual_hashes
from nutclf.errors import UserError


def make_folds(train: Split, k: int, seed: int, refusal: str) -> np.ndarray:
    """The fold of each training image, int64 [N]; images that show the same thing share one.

    There are `k` folds, or as many as the rarest class has different images. Raises `UserError`
    where that is one: `refusal`, with the reason for its `{}`.
    """
    groups = groups_of_like(train.keys, perceptual_hashes(train.pixels))
    for label in np.unique(train.labels):
        (rows,) = np.where(train.labels == label)
        if len(np.unique(groups[rows])) == 1:
            alone = f"{train.paths[rows[0]]} is the only different image of its class"
            raise UserError(refusal.format(alone))
    return assign_folds(train.labels, groups, k, seed)


def assign_folds(labels: np.ndarray, groups: Sequence[object], k: int, seed: int) -> np.ndarray:
    """The fold in which each image is held out, int64 [N], 0..k-1, from class ids [N].

    Images that share one of the N `groups` are held out together. No fold lacks a class: there are
    fewer than `k` where a class has fewer groups.
    """
    labels = np.asarray(labels)
    names = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    fewest = min(len(np.unique(names[labels == label])) for label in np.unique(labels))
    folds = np.empty(len(labels), np.int64)
    splitter = StratifiedGroupKFold(n_splits=min(k, fewest), shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels, names)):
        folds[held_out] = fold
    return folds
