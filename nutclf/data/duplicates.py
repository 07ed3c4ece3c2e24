"""The same picture twice: equal bytes or near pixels, within a split, and worse, across splits."""

import io
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import imagehash
import numpy as np
from PIL import Image

from nutclf.data.folder import ImageFolder
from nutclf.data.reader import (
    FORMATS,
    UnreadableImage,
    decode,
    orientation,
    pillow_silenced,
    read_bytes,
    square,
)

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


HASHED_SIDE = 224
"""Pixels of the square that is hashed; of any size, so that hashes do not depend on a network."""

UPRIGHT = 1  # EXIF's orientation of an image that needs no turn


@dataclass(frozen=True)
class Header:
    """What a file says of itself before a pixel is decoded.

    Attributes:
      format: of the content, Pillow's name: JPEG, PNG, ...
      width, height: as stored, before any EXIF turn.
      mode: Pillow's: RGB, L, P, CMYK, ...
      orientation: EXIF's, 1 (upright) to 8; 1 where there is none or it makes no sense.
    """

    format: str
    width: int
    height: int
    mode: str
    orientation: int


@dataclass(frozen=True, eq=False)
class Seen:
    """One file of a data set, looked at.

    Attributes:
      path: posix, relative to the data set's folder.
      split, label: the names of its folders.
      sha256: of its bytes; "" when they cannot be read.
      header: None when no image is recognised in it.
      problem: why it cannot be read; "" when it can.
      likeness: its perceptual hash, bool [256]; None when it cannot be read.
    """

    path: str
    split: str
    label: str
    sha256: str
    header: Header | None
    problem: str
    likeness: np.ndarray | None


def inspect(folder: ImageFolder) -> Sequence[Seen]:
    """Looks at every file of a data set, in the order of `folder.files`; keeps no pixels."""
    rows = zip(*(folder.files[name] for name in ("path", "split", "label", "sha256")), strict=True)
    # Threads, not processes: Pillow lets go of the interpreter while it decodes and resizes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda row: _look(folder, *row), rows))


def _look(folder: ImageFolder, path: str, split: str, label: int, sha256: str) -> Seen:
    header, problem, likeness = None, "", None
    try:
        data = read_bytes(folder.root / path)
        header = read_header(data)
        pixels = np.array(square(decode(data), HASHED_SIDE))
        likeness = perceptual_hashes(pixels[np.newaxis])[0]
    except UnreadableImage as error:
        problem = str(error)
    return Seen(path, split, folder.classes[label], sha256, header, problem, likeness)


def read_header(data: bytes) -> Header | None:
    """The header of an image file; None when the content is no image that this package reads."""
    try:
        with pillow_silenced(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # A JPEG with further pictures behind the first is one all the same.
            kind = "JPEG" if image.format == "MPO" else image.format
            turn = orientation(image)
            known = turn if isinstance(turn, int) and turn in range(UPRIGHT, 9) else UPRIGHT
            return Header(kind, image.width, image.height, image.mode, known)
    except Exception:  # a damaged header can raise nearly anything; `decode` gives the reason
        return None


_TELLING = 0.25
"""Share of bits that must be set for a hash to tell images apart. Half are, by construction; a
plain area has no frequencies, and all plain images would look like copies of each other."""


@dataclass(frozen=True)
class Pair:
    """Two files that show the same thing, in the order of the listing: train, valid, test.

    Attributes:
      first, second: their paths.
      splits, labels: of the first and of the second.
      equal_bytes: whether the files are equal.
      bits: of their 256-bit perceptual hashes that differ; 0 for equal bytes.
    """

    first: str
    second: str
    splits: tuple[str, str]
    labels: tuple[str, str]
    equal_bytes: bool
    bits: int

    @property
    def across_splits(self) -> bool:
        """Whether a model may have learned from the one and be judged on the other."""
        return self.splits[0] != self.splits[1]

    @property
    def labels_disagree(self) -> bool:
        """Whether at least one of the two labels must be wrong."""
        return self.labels[0] != self.labels[1]

    @property
    def how_like(self) -> str:
        """For people: how sure it is."""
        return "equal bytes" if self.equal_bytes else f"{self.bits} of 256 bits differ"


def find_pairs(files: Sequence[Seen]) -> list[Pair]:
    """All pairs of files that show the same thing: equal bytes first, then by bits that differ."""
    pairs = {(i, j): _pair(files, i, j, True, 0) for i, j in _equal(files)}
    for i, j, bits in _near(files):
        pairs.setdefault((i, j), _pair(files, i, j, False, bits))
    order = sorted(pairs, key=lambda ij: (not pairs[ij].equal_bytes, pairs[ij].bits, ij))
    return [pairs[ij] for ij in order]


def leaks_into_test(pairs: Sequence[Pair]) -> dict[str, str]:
    """Each test image that is in train or valid too, and the likest image there.

    Args:
      pairs: from `find_pairs`, in its order.
    """
    leaks: dict[str, str] = {}
    for pair in pairs:
        if pair.across_splits and pair.splits[1] == "test":
            leaks.setdefault(pair.second, pair.first)
    return leaks


def leaked_test_images(folder: ImageFolder) -> Mapping[str, str]:
    """`leaks_into_test` of a data set; reads all its files."""
    return leaks_into_test(find_pairs(inspect(folder)))


def _pair(files: Sequence[Seen], i: int, j: int, equal_bytes: bool, bits: int) -> Pair:
    a, b = files[i], files[j]
    return Pair(a.path, b.path, (a.split, b.split), (a.label, b.label), equal_bytes, bits)


def _equal(files: Sequence[Seen]) -> list[tuple[int, int]]:
    same = defaultdict(list)
    for row, file in enumerate(files):
        if file.sha256:  # "" is a file whose bytes nobody knows
            same[file.sha256].append(row)
    return [pair for rows in same.values() for pair in combinations(rows, 2)]


def _near(files: Sequence[Seen]) -> list[tuple[int, int, int]]:
    rows = [
        row
        for row, file in enumerate(files)
        if file.likeness is not None and file.likeness.mean() >= _TELLING
    ]
    if len(rows) < 2:
        return []
    pairs = near_pairs(np.stack([files[row].likeness for row in rows]))
    return [(rows[i], rows[j], bits) for i, j, bits in pairs]
