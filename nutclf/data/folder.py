"""A folder `train|valid|test/<class>/<image>`: its classes, its files, and their pixels."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nutclf.config import SPLITS
from nutclf.data.layout import agree, checked_root
from nutclf.data.listing import Notes, images, quote, subfolders
from nutclf.data.reader import UnreadableImage, read_image
from nutclf.errors import UserError

# A few broken files cost nothing; more than these say that something happened to the folder.
MAX_UNREADABLE_SHARE = 0.05


@dataclass(frozen=True)
class ImageFolder:
    """One data set on disk, as `scan` found it.

    Attributes:
      root: the folder, absolute, links resolved.
      classes: class names; the position is the label. The folders of train, sorted by name.
      files: one row an image file: path (posix, relative to root), split, label (position in
        `classes`), sha256 of the bytes ("" when unreadable). In order of split, class and name.
      notes: what was left out and why, one line each.
    """

    root: Path
    classes: tuple[str, ...]
    files: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """A sha256 that changes when any image, name, class or split does; 64 hex digits."""
        rows = sorted(zip(self.files["path"], self.files["sha256"], strict=True))
        # NUL cannot be part of a path, a newline can.
        return hashlib.sha256("".join(f"{p}\0{s}\0" for p, s in rows).encode()).hexdigest()

    def split(self, name: str) -> pd.DataFrame:
        """The rows of one split, with an index of their own. Raises `UserError` on a bad name."""
        if name not in SPLITS:
            raise UserError(f"split is {name!r}; allowed: {', '.join(SPLITS)}.")
        return self.files[self.files["split"] == name].reset_index(drop=True)


@dataclass(frozen=True)
class LoadedSplit:
    """The pixels of one split, each row with its identity.

    Attributes:
      images: RGB 0 to 255, uint8 [N, S, S, 3].
      labels: positions in the folder's classes, int64 [N].
      paths: N posix paths relative to the folder's root.
      unreadable: (path, reason) of each file left out; not among the N.
    """

    images: np.ndarray
    labels: np.ndarray
    paths: list[str]
    unreadable: tuple[tuple[str, str], ...]


def scan(root: str | os.PathLike) -> ImageFolder:
    """Lists a data set and checks its shape; every file is hashed, none is decoded.

    Raises:
      UserError: no such folder, a split is missing, or the splits disagree on the classes.
    """
    root = checked_root(Path(root))
    notes = Notes()
    found = {
        split: {
            name: list(images(root, f"{split}/{name}", notes))
            for name in subfolders(root, split, notes)
        }
        for split in SPLITS
    }
    counts = {
        split: {name: len(files) for name, files in folders.items()}
        for split, folders in found.items()
    }
    classes = agree(counts, notes)
    rows = [
        (path, split, classes.index(name), digest)
        for split, folders in found.items()
        for name, files in folders.items()
        for path, digest in files
    ]
    files = pd.DataFrame(rows, columns=["path", "split", "label", "sha256"])
    return ImageFolder(root, classes, files, notes.summary())


def read_split(
    folder: ImageFolder, split: str, size: int, *, allow_unreadable: bool = False
) -> LoadedSplit:
    """Reads every image of one split; what cannot be read is left out and listed.

    Args:
      folder: a scanned folder.
      split: one of `SPLITS`.
      size: side of the images, in pixels.
      allow_unreadable: go on although more than `MAX_UNREADABLE_SHARE` of the files are broken.

    Raises:
      UserError: too many files cannot be read, or none of some class to be trained can.
    """
    files = folder.split(split)
    pixels = np.empty((len(files), size, size, 3), np.uint8)

    def read(row: int) -> str | None:
        try:
            pixels[row] = read_image(folder.root / files["path"][row], size)
        except UnreadableImage as error:
            return str(error)
        return None

    # Threads, not processes: Pillow lets go of the interpreter while it decodes and resizes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = list(pool.map(read, range(len(files))))
    good = np.array([reason is None for reason in reasons], bool)
    unreadable = tuple((p, r) for p, r in zip(files["path"], reasons, strict=True) if r)
    labels = files["label"].to_numpy(np.int64)[good]
    _check_enough(folder, split, labels, unreadable, allow_unreadable)
    return LoadedSplit(
        pixels if good.all() else pixels[good], labels, files["path"][good].tolist(), unreadable
    )


def _check_enough(
    folder: ImageFolder,
    split: str,
    labels: np.ndarray,
    unreadable: tuple[tuple[str, str], ...],
    allow_unreadable: bool,
) -> None:
    total = len(labels) + len(unreadable)
    if len(unreadable) > MAX_UNREADABLE_SHARE * total and not allow_unreadable:
        listed = "; ".join(f"{quote(path)}: {reason}" for path, reason in unreadable[:10])
        more = f"; and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
        raise UserError(
            f"{len(unreadable)} of {total} {split} images cannot be read, more than "
            f"{MAX_UNREADABLE_SHARE:.0%}. Mend or remove them, or allow unreadable images. "
            f"{listed}{more}."
        )
    needed = folder.classes if split == "train" else ()
    gone = [name for label, name in enumerate(needed) if label not in labels]
    if gone or not len(labels):
        raise UserError(
            f"No {split} image of {', '.join(map(quote, gone)) or 'any class'} can be read; "
            f"mend them or remove the class."
        )
