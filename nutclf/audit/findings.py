"""What is wrong with the files of a data set: broken, misnamed, twice there, odd, unbalanced."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from nutclf.config import SPLITS
from nutclf.data.duplicates import UPRIGHT, Pair, Seen, find_pairs, leaks_into_test
from nutclf.data.folder import DataSet

FORMAT_OF = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
LONGEST_ASPECT = 2.0
"""Beyond it the centred square, which is all that a network sees, is less than half the picture."""

USUAL_SHARE = 0.9
"""Where so many images have one size, another size is worth a look."""


@dataclass(frozen=True)
class Finding:
    """A file, and what is wrong with it."""

    path: str
    what: str


@dataclass(frozen=True)
class FileAudit:
    """What the files of a data set show without any network.

    Attributes:
      n_images: files, unreadable ones too.
      classes: in the order of the labels.
      balance: split -> class -> files.
      notes: what the listing left out.
      unreadable: with the reason.
      mistyped: with what the content is.
      odd: with what is odd about size, aspect, mode or EXIF orientation; one row an oddity.
      pairs: files that show the same thing, the likest first.
    """

    n_images: int
    classes: tuple[str, ...]
    balance: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    unreadable: tuple[Finding, ...]
    mistyped: tuple[Finding, ...]
    odd: tuple[Finding, ...]
    pairs: tuple[Pair, ...]

    @property
    def leaks(self) -> dict[str, str]:
        """Each test image that train or valid has too, and the likest image there."""
        return leaks_into_test(self.pairs)

    def record(self) -> dict[str, object]:
        """All of it, for JSON."""
        pairs = [
            asdict(pair)
            | {"across_splits": pair.across_splits, "labels_disagree": pair.labels_disagree}
            for pair in self.pairs
        ]
        return asdict(self) | {"pairs": pairs, "leaks": self.leaks}


def audit_files(folder: DataSet, seen: Sequence[Seen], side: int) -> FileAudit:
    """Judges files that were looked at.

    Args:
      folder: the data set.
      seen: from `nutclf.data.inspection.inspect`.
      side: of the square that the network takes, pixels.
    """
    counts = Counter((file.split, file.label) for file in seen)
    balance = {split: {name: counts[split, name] for name in folder.classes} for split in SPLITS}
    return FileAudit(
        n_images=len(seen),
        classes=folder.classes,
        balance=balance,
        notes=folder.notes,
        unreadable=tuple(Finding(file.path, file.problem) for file in seen if file.problem),
        mistyped=_mistyped(seen),
        odd=_oddities([file for file in seen if not file.problem], side),
        pairs=tuple(find_pairs(seen)),
    )


def _mistyped(seen: Sequence[Seen]) -> tuple[Finding, ...]:
    found = []
    for file in seen:
        said = FORMAT_OF[PurePosixPath(file.path).suffix.lower()]
        if file.header and file.header.format != said:
            found.append(Finding(file.path, f"{file.header.format}, named as {said}"))
    return tuple(found)


def _oddities(readable: Sequence[Seen], side: int) -> tuple[Finding, ...]:
    usual = _usual_size(readable)
    return tuple(Finding(file.path, what) for file in readable for what in _odd(file, side, usual))


def _usual_size(readable: Sequence[Seen]) -> tuple[int, int] | None:
    """The width and height that nearly all images have; None where there is no such size."""
    sizes = Counter((file.header.width, file.header.height) for file in readable)
    size, count = sizes.most_common(1)[0] if sizes else (None, 0)
    return size if count >= USUAL_SHARE * len(readable) else None


def _odd(file: Seen, side: int, usual: tuple[int, int] | None) -> list[str]:
    header = file.header
    size, odd = f"{header.width} x {header.height}", []
    if min(header.width, header.height) < side:
        odd.append(f"size {size}: enlarged, the network takes {side} x {side}")
    if usual and (header.width, header.height) != usual:
        odd.append(f"size {size}: nearly all others are {usual[0]} x {usual[1]}")
    if max(header.width, header.height) > LONGEST_ASPECT * min(header.width, header.height):
        odd.append(f"aspect {size}: the network sees the centred square only")
    if header.mode != "RGB":
        odd.append(f"mode {header.mode}: converted to RGB")
    if header.orientation != UPRIGHT:
        odd.append(f"EXIF orientation {header.orientation}: turned upright when read")
    return odd
