"""The same picture twice: equal bytes or near pixels, within a split, and worse, across splits."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nutclf.data.folder import ImageFolder
from nutclf.data.inspection import Seen, inspect
from nutclf.data.likeness import near_pairs

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
