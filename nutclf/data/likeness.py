"""Which images show the same thing: perceptual hashes, and groups of those that are near."""

from collections.abc import Sequence

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HASH_SIDE = 16  # 16 x 16 bits; with 8 x 8 two nuts on a white ground pass for one photo
# Pixels of the square that audit, leak search and held-out splits hash, whatever the network takes;
# folds hash the network's own square.
HASHED_SIDE = 224
NEAR_BITS = 16  # of 256, how many may differ between near-duplicates
# Share of bits that must be set for a hash to tell images apart. Half are, by construction; a
# plain area has no frequencies, and all plain images would look like copies of each other.
_TELLING = 0.25
_BLOCK = 1024  # hashes that are compared with all others at once, for memory


def perceptual_hashes(pixels: np.ndarray) -> np.ndarray:
    """The perceptual hashes (DCT, `imagehash.phash`) of uint8 RGB [N, S, S, 3], bool [N, 256]."""
    hashes = [imagehash.phash(Image.fromarray(image), HASH_SIDE).hash.ravel() for image in pixels]
    return np.array(hashes, bool).reshape(len(pixels), HASH_SIDE * HASH_SIDE)


def near_pairs(hashes: np.ndarray) -> list[tuple[int, int, int]]:
    """Pairs i < j whose hashes differ in `NEAR_BITS` at most, as (i, j, bits), nearest first.

    `hashes` are bool [N, B]. One of a plain image is near none.
    """
    if not len(hashes):
        return []
    (told,) = np.where(hashes.mean(axis=1) >= _TELLING)
    signs, pairs = hashes[told].astype(np.float32) * 2 - 1, []
    for start in range(0, len(told), _BLOCK):
        # Agreement minus disagreement, as a matrix product: bits that differ = (n - product) / 2.
        differ = (hashes.shape[1] - signs[start : start + _BLOCK] @ signs.T) / 2
        first, second = np.where(np.triu(differ <= NEAR_BITS, k=start + 1))
        bits = differ[first, second].astype(int)
        pairs += zip(
            told[start + first].tolist(), told[second].tolist(), bits.tolist(), strict=True
        )
    return sorted(pairs, key=lambda pair: pair[2])


def groups_of_like(keys: Sequence[str], hashes: np.ndarray) -> np.ndarray:
    """A group number per image: equal keys, or a chain of near hashes, make a group. int64 [N].

    A group's number is the rank of its first image's key; folds, and so studies, depend on it.
    """
    _, first, rank = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    links = [*enumerate(first[rank]), *((i, j) for i, j, _ in near_pairs(hashes))]
    graph = coo_array((np.ones(len(links)), np.transpose(links)), shape=(len(keys), len(keys)))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    return rank[first[component]].astype(np.int64)
