"""Which images show the same thing: equal bytes, or nearly equal pixels."""

from collections.abc import Sequence

import imagehash
import numpy as np
from PIL import Image

HASH_SIDE = 16
"""A hash of 16 x 16 bits; the library's 8 x 8 takes two nuts on a white ground for one photo."""

NEAR_BITS = 16
"""Of 256 bits, how many may differ between near-duplicates."""


def perceptual_hashes(pixels: np.ndarray) -> np.ndarray:
    """The perceptual hash (DCT, `imagehash.phash`) of each image.

    Args:
      pixels: uint8 RGB [N, S, S, 3].

    Returns:
      bool [N, HASH_SIDE * HASH_SIDE].
    """
    hashes = [imagehash.phash(Image.fromarray(image), HASH_SIDE).hash.ravel() for image in pixels]
    return np.array(hashes, bool).reshape(len(pixels), HASH_SIDE * HASH_SIDE)


def near_pairs(hashes: np.ndarray, limit: int = NEAR_BITS) -> list[tuple[int, int, int]]:
    """Pairs i < j whose hashes differ in `limit` bits at most, as (i, j, bits), nearest first."""
    signs = hashes.astype(np.float32) * 2 - 1
    # Agreement minus disagreement, as one matrix product: bits that differ = (n - product) / 2.
    differ = ((hashes.shape[1] - signs @ signs.T) / 2).round().astype(int)
    first, second = np.where(np.triu(differ <= limit, k=1))
    pairs = zip(first.tolist(), second.tolist(), differ[first, second].tolist(), strict=True)
    return sorted(pairs, key=lambda pair: pair[2])


def groups_of_like(keys: Sequence[str], hashes: np.ndarray) -> np.ndarray:
    """A group number an image: equal keys, or a chain of near hashes, make a group. int64 [N]."""
    groups = np.unique(np.asarray(keys), return_inverse=True)[1].astype(np.int64)
    for i, j, _ in near_pairs(hashes):
        groups[groups == groups[j]] = groups[i]
    return groups
