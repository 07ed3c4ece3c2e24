"""How near an image is to what a model learned from: "not like any it has seen" beside "unsure".

NumPy alone: a logged model carries this file, and answers with it where nothing else of ours is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NEAREST = 5  # training images that a score is the mean of
MAX_BYTES = 6_000_000  # of a bank of features


@dataclass(frozen=True)
class Familiarity:
    """Frozen features of training images, and the least score that is an answer."""

    bank: np.ndarray  # float32 [P, F], each of length 1, rounded as in the file
    paths: Sequence[str]  # of those images, within the data set
    threshold: float  # in [-1, 1]

    def compare(self, features: np.ndarray) -> tuple[np.ndarray, list[list[str]]]:
        """Scores [N] of features [N, F], and the paths of the nearest images, the nearest first.

        A score is the mean cosine to the `NEAREST` images of the bank, in [-1, 1].
        """
        cosines = _unit(features) @ self.bank.T
        nearest = np.argsort(-cosines, axis=1)[:, :NEAREST]
        scores = np.take_along_axis(cosines, nearest, axis=1).mean(axis=1)
        return scores, [[self.paths[i] for i in row] for row in nearest]

    def save(self, file: Path) -> None:
        """Writes it as an .npz file, the bank as float16."""
        bank = self.bank.astype(np.float16)
        np.savez(file, bank=bank, paths=np.array(self.paths), threshold=self.threshold)

    @classmethod
    def load(cls, file: Path) -> "Familiarity":
        """Reads what `save` wrote; nothing in the file is run."""
        with np.load(file, allow_pickle=False) as kept:
            bank = kept["bank"].astype(np.float32)
            return cls(bank, kept["paths"].tolist(), float(kept["threshold"]))


def learn_familiarity(
    features: np.ndarray,
    labels: np.ndarray,
    paths: Sequence[str],
    folds: np.ndarray,
    coverage: float,
) -> Familiarity:
    """From the training images: features [N, F], class ids [N], paths, and folds [N].

    The threshold is passed by a share `coverage` of the images, each compared with those of other
    folds, so that a copy of itself does not vouch for it. Where the bank would exceed `MAX_BYTES`,
    each class keeps its share of images. Without folds (all alike) an image is compared with all
    others but itself.
    """
    units = _unit(features)
    if len(np.unique(folds)) == 1:
        folds = np.arange(len(units))
    scores = np.empty(len(units), np.float32)
    for start in range(0, len(units), 256):  # a block of rows: N x N may not fit
        rows = slice(start, start + 256)
        cosines = units[rows] @ units.T
        cosines[folds[rows, np.newaxis] == folds] = -1
        n = min(NEAREST, cosines.shape[1] - 1)
        scores[rows] = np.partition(cosines, -n, axis=1)[:, -n:].mean(axis=1)
    kept = _spread(labels, MAX_BYTES // (2 * units.shape[1]))
    threshold = float(np.quantile(scores, 1 - coverage))
    bank = units[kept].astype(np.float16).astype(np.float32)
    return Familiarity(bank, [paths[i] for i in kept], threshold)


def _unit(features: np.ndarray) -> np.ndarray:
    """Each row divided by its length; a row of zeros stays."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)


def _spread(labels: np.ndarray, n: int) -> np.ndarray:
    """At most `n` rows, evenly from each class, in their order."""
    if len(labels) <= n:
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(labels) - 1, n).astype(int)])
