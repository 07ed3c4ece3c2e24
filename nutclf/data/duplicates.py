"""The same picture twice: equal bytes or near pixels, within a split, and worse, across splits."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nutclf.data.folder import DataSet
from nutclf.data.reader import (
    UnreadableImage,
    open_image,
    orientation,
    read_bytes,
    read_image,
    shows_nothing,
)

HASH_SIDE = 16  # 16 x 16 bits; with 8 x 8 two nuts on a white ground pass for one photo
HASHED_SIDE = 224  # pixels of the square that is hashed, whatever the network takes
NEAR_BITS = 16  # of 256, how many may differ between near-duplicates
# Share of bits that must be set for a hash to tell images apart. Half are, by construction; a
# plain area has no frequencies, and all plain images would look like copies of each other.
_TELLING = 0.25


# What `inspect` tells of a file. Those of the header: Pillow's name of the content's format, ""
# where no image is recognised; the size as stored; Pillow's mode; EXIF's orientation, 1 (upright)
# to 8. And why it cannot be read, "" when it can; its perceptual hash or None; and whether it is
# nearly one colour.
SEEN = ("format", "width", "height", "mode", "orientation", "problem", "likeness", "plain")


@dataclass(frozen=True)
class Pair:
    """Two files that show the same thing, in the order of the listing: train, valid, test."""

    first: str  # path
    second: str
    splits: tuple[str, str]  # of the first and of the second
    labels: tuple[str, str]
    equal_bytes: bool
    bits: int  # of their 256-bit perceptual hashes that differ; 0 for equal bytes
    across_splits: bool
    labels_disagree: bool

    @property
    def how_like(self) -> str:
        return "equal bytes" if self.equal_bytes else f"{self.bits} of 256 bits differ"


def perceptual_hashes(pixels: np.ndarray) -> np.ndarray:
    """The perceptual hashes (DCT, `imagehash.phash`) of uint8 RGB [N, S, S, 3], bool [N, 256]."""
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
    """A group number per image: equal keys, or a chain of near hashes, make a group. int64 [N].

    A group's number is the rank of its first image's key; folds, and so studies, depend on it.
    """
    _, first, rank = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    links = [*enumerate(first[rank]), *((i, j) for i, j, _ in near_pairs(hashes))]
    graph = coo_array((np.ones(len(links)), np.transpose(links)), shape=(len(keys), len(keys)))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    return rank[first[component]].astype(np.int64)


def inspect(data: DataSet) -> pd.DataFrame:
    """The table of a data set's files with class names for labels, and the columns `SEEN`."""

    def look(path: str) -> tuple[object, ...]:
        header, problem, likeness, plain = ("", 0, 0, "", 1), "", None, False
        try:
            content = read_bytes(data.root / path)
            with open_image(content) as image:
                kind = "JPEG" if image.format == "MPO" else image.format  # several in one file
                header = kind, *image.size, image.mode, orientation(image)
            pixels = read_image(content, HASHED_SIDE)
            plain, (likeness,) = shows_nothing(pixels), perceptual_hashes(pixels[np.newaxis])
        except UnreadableImage as error:
            problem = str(error)
        return *header, problem, likeness, plain

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without the interpreter
        rows = list(pool.map(look, data.files["path"]))
    seen = pd.DataFrame(rows, columns=list(SEEN))
    return data.files.assign(label=np.array(data.classes)[data.files["label"]]).join(seen)


def find_pairs(files: pd.DataFrame) -> list[Pair]:
    """All pairs of files, from `inspect`, that show the same: equal bytes first, then by bits."""
    known = files[files["sha256"] != ""]  # "" is a file whose bytes nobody knows
    same = known.groupby("sha256").groups.values()
    equal = {pair for rows in same for pair in combinations(rows, 2)}
    rows = list(files.itertuples())
    told = [file for file in rows if file.problem == "" and file.likeness.mean() >= _TELLING]
    hashes = np.array([file.likeness for file in told], bool)
    near = near_pairs(hashes.reshape(len(told), HASH_SIDE * HASH_SIDE))
    bits = {(told[i].Index, told[j].Index): n for i, j, n in near} | dict.fromkeys(equal, 0)
    pairs = []
    for i, j in sorted(bits, key=lambda ij: (ij not in equal, bits[ij], ij)):
        a, b = rows[i], rows[j]
        splits, labels = (a.split, b.split), (a.label, b.label)
        facts = (i, j) in equal, bits[i, j], a.split != b.split, a.label != b.label
        pairs.append(Pair(a.path, b.path, splits, labels, *facts))
    return pairs


def leaks_into_test(pairs: Sequence[Pair]) -> dict[str, str]:
    """Each test image that is in train or valid too, and the likest there; from `find_pairs`."""
    leaks: dict[str, str] = {}
    for pair in pairs:
        if pair.across_splits and pair.splits[1] == "test":
            leaks.setdefault(pair.second, pair.first)
    return leaks


def leaked_test_images(data: DataSet) -> dict[str, str]:
    """`leaks_into_test` of a data set; reads all its files."""
    return leaks_into_test(find_pairs(inspect(data)))
