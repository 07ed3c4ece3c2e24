"""Folders `train|valid|test/<class>/<image>`: the table of files, and the pixels of a split."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nutclf.config import SPLITS
from nutclf.data.reader import UnreadableImage, read_bytes, read_image
from nutclf.errors import UserError

# In either case. The reader goes by content, so WebP bytes under the name .jpg are read as well.
IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
)
# A few broken files cost nothing; more than these say that something happened to the folder.
MAX_UNREADABLE_SHARE = 0.05
_LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"})


@dataclass(frozen=True, eq=False)
class DataSet:
    """The table of a data set's files; whoever reads images goes by it and lists no folder.

    Attributes:
      root: the folder, absolute, links resolved.
      classes: class names; the position is the label.
      files: one row per image file: path (posix, relative to root), split, label (position in
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


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split in memory, each with its identity.

    Attributes:
      pixels: RGB 0 to 255, uint8 [N, S, S, 3].
      labels: positions in the data set's classes, int64 [N].
      paths: N posix paths relative to the data set's root.
      keys: sha256 of each file; equal keys mean equal pixels.
      unreadable: (path, reason) of each file left out; not among the N.
    """

    pixels: np.ndarray
    labels: np.ndarray
    paths: list[str]
    keys: list[str]
    unreadable: tuple[tuple[str, str], ...] = ()

    def take(self, rows: Iterable[int]) -> "Split":
        """The images of those rows, in that order."""
        rows = np.asarray(rows, np.intp)
        paths, keys = ([names[row] for row in rows] for names in (self.paths, self.keys))
        return Split(self.pixels[rows], self.labels[rows], paths, keys)


def scan(root: str | os.PathLike) -> DataSet:
    """Lists a data set and checks its shape; every file is hashed, none is decoded.

    Links to folders are never followed: they can lead out of the data, back into it (a loop), or
    from one split into another.

    Raises:
      UserError: no such folder, a split is missing, or the splits disagree on the classes.
    """
    root = _checked_root(Path(root))
    notes, litter, rows = [], [], []
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        counts[split] = {}
        for folder in _entries(root / split, litter):
            if reason := _why_no_class(folder):
                notes.append(f"{quote(f'{split}/{folder.name}')} {reason}")
                continue
            counts[split][folder.name] = 0
            for entry in _entries(Path(folder), litter):
                path = f"{split}/{folder.name}/{entry.name}"
                if reason := _why_no_image(root, entry):
                    notes.append(f"{quote(path)} ignored: {reason}")
                    continue
                digest, reason = _sha256(root / path)
                if reason:
                    notes.append(f"{quote(path)} cannot be read: {reason}")
                counts[split][folder.name] += 1
                rows.append((path, split, folder.name, digest))
    classes = _agreed_classes(counts, notes)
    if litter:
        kinds = ", ".join(quote(name) for name in sorted(set(litter))[:5])
        notes.append(f"{len(litter)} litter files and folders ignored ({kinds})")
    rows = [(path, split, classes.index(name), digest) for path, split, name, digest in rows]
    files = pd.DataFrame(rows, columns=["path", "split", "label", "sha256"])
    return DataSet(root, classes, files, tuple(notes))


def read_split(
    data: DataSet,
    split: str,
    size: int,
    *,
    say: Callable[[str], None] | None = None,
    allow_unreadable: bool = False,
) -> Split:
    """Reads the images of one split; what cannot be read is left out and listed.

    Args:
      data: its table names the files.
      split: one of `SPLITS`.
      size: side of the images, in pixels.
      say: is told of each file left out, one line each.
      allow_unreadable: go on although more than `MAX_UNREADABLE_SHARE` of the files are broken.

    Raises:
      UserError: a file is not the one that was listed, too many files cannot be read, or none of
        some class to be trained can.
    """
    files = data.split(split)
    pixels = np.empty((len(files), size, size, 3), np.uint8)

    def read(row: int) -> str | None:
        try:
            content = read_bytes(data.root / files["path"][row])
            if hashlib.sha256(content).hexdigest() != files["sha256"][row]:
                raise UserError(
                    f"{quote(files['path'][row])} in {quote(str(data.root))} has changed since "
                    f"the data were listed; run the command again while nobody writes there."
                )
            pixels[row] = read_image(content, size)
        except UnreadableImage as error:
            return str(error)
        return None

    # Threads, not processes: Pillow lets go of the interpreter while it decodes and resizes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = list(pool.map(read, range(len(files))))
    good = np.array([reason is None for reason in reasons], bool)
    unreadable = tuple((p, r) for p, r in zip(files["path"], reasons, strict=True) if r)
    left = files[good]
    labels = left["label"].to_numpy(np.int64)
    if len(unreadable) > MAX_UNREADABLE_SHARE * len(files) and not allow_unreadable:
        listed = "; ".join(f"{quote(path)}: {reason}" for path, reason in unreadable[:10])
        more = f"; and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
        raise UserError(
            f"{len(unreadable)} of {len(files)} {split} images cannot be read, more than "
            f"{MAX_UNREADABLE_SHARE:.0%}. Mend or remove them, or allow unreadable images. "
            f"{listed}{more}."
        )
    needed = data.classes if split == "train" else ()
    gone = [name for label, name in enumerate(needed) if label not in labels]
    if gone or not len(labels):
        raise UserError(
            f"No {split} image of {_names(gone) or 'any class'} can be read; mend them or remove "
            f"the class."
        )
    if say:
        for path, reason in unreadable:
            say(f"left out {path!r}: {reason}")
    pixels = pixels if good.all() else pixels[good]
    return Split(pixels, labels, left["path"].tolist(), left["sha256"].tolist(), unreadable)


def quote(name: str) -> str:
    """A name that is safe in one line: newlines and odd bytes escaped, letters as they are."""
    return name if name.isprintable() else repr(name)


def is_litter(name: str) -> bool:
    """Whether a name is one that systems and tools leave behind: dot-files, Thumbs.db and such."""
    return name.startswith(".") or name.lower() in _LITTER


def bad_link(root: Path, link: Path) -> str | None:
    """Why a link is not followed; None for one that stays in `root`, itself free of links."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # Python 3.11 says RuntimeError for a loop, later ones OSError
        return "it is a link that leads nowhere, or in a loop"
    return None if target.is_relative_to(root) else "it is a link that leaves the data folder"


def _checked_root(root: Path) -> Path:
    """The folder, absolute with links resolved. Raises `UserError` unless it has every split."""
    layout = "train/, valid/ and test/, each with one folder of images a class"
    if not root.is_dir():
        state = "no folder" if root.exists() else "missing"
        raise UserError(f"The data folder {quote(str(root))} is {state}; give one with {layout}.")
    here = {entry.name: entry for entry in _entries(root, litter=[])}
    links = [name for name in SPLITS if name in here and here[name].is_symlink()]
    lacking = [name for name in SPLITS if name not in here or not here[name].is_dir()]
    if lacking or links:
        raise UserError(
            f"The data folder {quote(str(root))} must hold {layout}. "
            f"Found: {_names(list(here)[:12]) or 'nothing'}. "
            + (f"Not there, or no folder: {', '.join(lacking)}. " if lacking else "")
            + (f"Links, which are not followed: {', '.join(links)}. " if links else "")
            + "Rename or move your folders so."
        )
    return root.resolve()


def _entries(folder: Path, litter: list[str]) -> list[os.DirEntry]:
    """What is in a folder, by name; names of litter go to `litter` instead."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"The folder {quote(str(folder))} cannot be listed: {error.strerror}. "
            f"Make it readable, or remove it."
        ) from error
    litter.extend(entry.name for entry in entries if is_litter(entry.name))
    return [entry for entry in entries if not is_litter(entry.name)]


def _why_no_class(entry: os.DirEntry) -> str | None:
    """Why an entry of a split is no class folder; None when it is one."""
    if entry.is_dir(follow_symlinks=False):
        if not _is_unicode(entry.name):
            raise UserError(f"The name of the folder {quote(entry.path)} is not UTF-8; rename it.")
        return None
    if entry.is_symlink():
        return "is a link, not followed; put the folder itself there"
    return "ignored: it lies outside the class folders"


def _why_no_image(root: Path, entry: os.DirEntry) -> str | None:
    """Why an entry of a class folder is no image file; None when it is one."""
    if entry.is_symlink() and (reason := bad_link(root, Path(entry))):
        return reason
    try:
        mode = entry.stat().st_mode
    except OSError as error:  # the folder may be listed but not entered: all its files are lost
        raise UserError(
            f"{quote(entry.path)} cannot be looked at: {error.strerror}. Make its folder readable."
        ) from error
    if not stat.S_ISREG(mode):
        a_folder = stat.S_ISDIR(mode)
        return "it is a folder inside a class folder" if a_folder else "it is no regular file"
    suffix = os.path.splitext(entry.name)[1]
    if suffix.lower() not in IMAGE_EXTENSIONS:
        return f"its extension {suffix!r} is not one of {' '.join(sorted(IMAGE_EXTENSIONS))}"
    if not _is_unicode(entry.name):
        return "its name is not UTF-8, so no record could hold it; rename it"
    return None


def _is_unicode(name: str) -> bool:
    return name == name.encode(errors="ignore").decode()


def _sha256(path: Path) -> tuple[str, str | None]:
    """The digest of a file and None, or "" and the reason why it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), None
    except OSError as error:
        return "", error.strerror


def _names(names: list[str]) -> str:
    return ", ".join(quote(name) for name in names)


def _agreed_classes(counts: Mapping[str, Mapping[str, int]], notes: list[str]) -> tuple[str, ...]:
    """The classes of train in the order of their labels, once the other splits agree with them.

    Args:
      counts: split -> class folder -> number of image files in it.
      notes: gets a line for each class that one of valid and test lacks.
    """
    train = sorted(counts["train"])
    if empty := [name for name in train if not counts["train"][name]]:
        raise UserError(
            f"train/ has class folders without an image: {_names(empty)}. Every class needs images "
            f"to learn from; fill these folders or remove them from every split."
        )
    if len(train) < 2:
        raise UserError(
            f"train/ has {len(train)} class folders ({_names(train) or 'none'}); at least two are "
            f"needed, one folder of images a class: train/<class>/<image>."
        )
    lacking = {}
    for split in ("valid", "test"):
        added = sorted(set(counts[split]) - set(train))
        if filled := [name for name in added if counts[split][name]]:
            raise UserError(
                f"{split}/ has classes that train/ lacks: {_names(filled)}; train/ has "
                f"{_names(train)}. Rename the folders to match, or give train/ such images."
            )
        notes.extend(f"{split}/{quote(name)} ignored: it holds no image" for name in added)
        if not any(counts[split].values()):
            raise UserError(f"{split}/ holds no image in any class folder; put images there.")
        lacking[split] = [name for name in train if not counts[split].get(name)]
    if alone := sorted(set(lacking["valid"]) & set(lacking["test"])):
        raise UserError(
            f"Classes present in train/ only: {_names(alone)}. Give valid/ or test/ images of "
            f"them, or remove them from train/."
        )
    for split, names in lacking.items():
        if names:
            notes.append(f"{split}/ has no image of {_names(names)}; no score covers them")
    return tuple(train)
