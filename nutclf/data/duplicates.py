"""The same picture twice: equal bytes or near pixels, within a split, and worse, across splits."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from nutclf.data.folder import DataSet
from nutclf.data.likeness import HASHED_SIDE, near_pairs, perceptual_hashes
from nutclf.data.reader import (
    UnreadableImage,
    open_image,
    orientation,
    read_bytes,
    read_image,
    shows_nothing,
)

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
    told = [file for file in rows if file.problem == ""]
    near = near_pairs(np.array([file.likeness for file in told], bool))
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
