"""What is wrong with the files of a data set: broken, misnamed, duplicated, odd, unbalanced."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from PIL import Image

from nutclf.config import SPLITS
from nutclf.data.duplicates import UPRIGHT, Pair, Seen, find_pairs, leaks_into_test
from nutclf.data.folder import DataSet

LONGEST_ASPECT = 2.0
"""Beyond it the centred square, which is all that a network sees, is less than half the picture."""

USUAL_SHARE = 0.9
"""Where this share of the images has one size, another size is worth a look."""


@dataclass(frozen=True)
class Finding:
    """A file, and what is wrong with it."""

    path: str
    what: str


@dataclass(frozen=True)
class FileAudit:
    """What the files of a data set show without any network."""

    n_images: int  # unreadable ones too
    classes: tuple[str, ...]  # in the order of the labels
    balance: dict[str, dict[str, int]]  # split -> class -> files
    notes: tuple[str, ...]  # what the listing left out
    unreadable: tuple[Finding, ...]
    mistyped: tuple[Finding, ...]  # the content is of another type than the name says
    odd: tuple[Finding, ...]  # in size, aspect, mode or EXIF orientation; one row per oddity
    pairs: tuple[Pair, ...]  # files that show the same thing, the most alike first

    @property
    def leaks(self) -> dict[str, str]:
        """Each test image that train or valid has too, and the most similar image there."""
        return leaks_into_test(self.pairs)

    def record(self) -> dict[str, object]:
        """All of it, for JSON."""
        pairs = [
            asdict(pair)
            | {"across_splits": pair.across_splits, "labels_disagree": pair.labels_disagree}
            for pair in self.pairs
        ]
        return asdict(self) | {"pairs": pairs, "leaks": self.leaks}


def audit_files(data: DataSet, seen: Sequence[Seen], side: int) -> FileAudit:
    """Findings on the files of a data set.

    Args:
      data: the data set.
      seen: its files, from `nutclf.data.duplicates.inspect`.
      side: of the square that the network takes, pixels.
    """
    counts = Counter((file.split, file.label) for file in seen)
    readable = [file for file in seen if not file.problem]
    sizes = Counter((file.header.width, file.header.height) for file in readable).most_common(1)
    usual = [size for size, count in sizes if count >= USUAL_SHARE * len(readable)]
    return FileAudit(
        n_images=len(seen),
        classes=data.classes,
        balance={split: {name: counts[split, name] for name in data.classes} for split in SPLITS},
        notes=data.notes,
        unreadable=tuple(Finding(file.path, file.problem) for file in seen if file.problem),
        mistyped=tuple(_mistyped(seen)),
        odd=tuple(
            Finding(file.path, what) for file in readable for what in _odd(file, side, usual)
        ),
        pairs=tuple(find_pairs(seen)),
    )


def _mistyped(seen: Sequence[Seen]) -> Iterator[Finding]:
    types = Image.registered_extensions()
    for file in seen:
        named = types[PurePosixPath(file.path).suffix.lower()]
        if file.header and file.header.format != named:
            yield Finding(file.path, f"{file.header.format}, named as {named}")


def _odd(file: Seen, side: int, usual: list[tuple[int, int]]) -> Iterator[str]:
    header = file.header
    short, long = sorted((header.width, header.height))
    size = f"{header.width} x {header.height}"
    if short < side:
        yield f"size {size}: enlarged, the network takes {side} x {side}"
    if usual and (header.width, header.height) not in usual:
        yield f"size {size}: nearly all others are {usual[0][0]} x {usual[0][1]}"
    if long > LONGEST_ASPECT * short:
        yield f"aspect {size}: the network sees the centred square only"
    if header.mode != "RGB":
        yield f"mode {header.mode}: converted to RGB"
    if header.orientation != UPRIGHT:
        yield f"EXIF orientation {header.orientation}: turned upright when read"
