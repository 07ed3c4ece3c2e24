"""Folders `train|valid|test/<class>/<image>`: the table of files, and the pixels of a split."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
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

    `files` has a row per image file, ordered by split, class and name: path (posix, relative to
    root), split, label and sha256 of the bytes ("" when unreadable).
    """

    root: Path  # the folder, absolute, links resolved
    classes: tuple[str, ...]  # names; the position is the label
    files: pd.DataFrame
    notes: tuple[str, ...]  # what was left out and why, one line each

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
    """The images of one split in memory, each with its identity."""

    pixels: np.ndarray  # RGB 0 to 255, uint8 [N, S, S, 3]
    labels: np.ndarray  # positions in the data set's classes, int64 [N]
    paths: list[str]  # posix, relative to the data set's root
    keys: list[str]  # sha256 of each file; equal keys mean equal pixels


def scan(root: str | os.PathLike) -> DataSet:
    """Lists a data set and checks its shape; every file is hashed, none is decoded.

    Links to folders are not followed: they can lead out of the data, in a loop or to another split.
    Raises `UserError` when the folder or a split is missing, or the splits disagree on the classes.
    """
    notes, litter, rows = [], [], []
    counts = {split: Counter() for split in SPLITS}  # images by class folder
    try:
        _check_layout(Path(root))
        root = Path(root).resolve()
        folders = [(split, entry) for split in SPLITS for entry in _entries(root / split, litter)]
        for split, folder in folders:
            if reason := _why_no_class(folder):
                notes.append(f"{quote(f'{split}/{folder.name}')} {reason}")
                continue
            counts[split][folder.name] = 0
            for entry in _entries(folder, litter):
                path = f"{split}/{folder.name}/{entry.name}"
                if reason := _why_no_image(root, entry):
                    notes.append(f"{quote(path)} ignored: {reason}")
                    continue
                digest = ""
                try:
                    with open(entry, "rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                except OSError as error:
                    notes.append(f"{quote(path)} cannot be read: {error.strerror}")
                counts[split][folder.name] += 1
                rows.append((path, split, folder.name, digest))
    except OSError as error:
        raise UserError(
            f"{quote(str(error.filename))} cannot be listed: {error.strerror}. Make it and the "
            f"folder around it readable, or remove it."
        ) from error
    classes = _agreed_classes(counts, notes)
    if litter:
        kinds = _names(sorted(set(litter))[:5])
        notes.append(f"{len(litter)} litter files and folders ignored ({kinds})")
    files = pd.DataFrame(rows, columns=["path", "split", "label", "sha256"])
    files["label"] = files["label"].map(classes.index)
    return DataSet(root, classes, files, tuple(notes))


def read_split(
    data: DataSet,
    split: str,
    size: int,
    *,
    say: Callable[[str], None] | None = None,
    allow_unreadable: bool = False,
) -> Split:
    """Reads the images of one split, `size` pixels a side, by the table of `data`.

    What cannot be read is left out and told to `say`. Raises `UserError` when a file
    has changed since it was listed, no image of some class in train can be read, or, unless
    `allow_unreadable`, more than `MAX_UNREADABLE_SHARE` of the files cannot.
    """
    files = data.split(split)
    pixels = np.empty((len(files), size, size, 3), np.uint8)

    def read(row: int, path: str, sha256: str) -> str:
        try:
            content = read_bytes(data.root / path)
            if hashlib.sha256(content).hexdigest() != sha256:
                raise UserError(
                    f"{quote(path)} in {quote(str(data.root))} has changed since the data were "
                    f"listed; run the command again while nobody writes there."
                )
            pixels[row] = read_image(content, size)
        except UnreadableImage as error:
            return str(error)
        return ""

    # Threads, not processes: Pillow lets go of the interpreter while it decodes and resizes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = list(pool.map(read, files.index, files["path"], files["sha256"]))
    broken = [f"{quote(p)}: {r}" for p, r in zip(files["path"], reasons, strict=True) if r]
    left = files[[not reason for reason in reasons]]
    labels = left["label"].to_numpy(np.int64)
    if len(broken) > MAX_UNREADABLE_SHARE * len(files) and not allow_unreadable:
        more = f"; and {len(broken) - 10} more" if len(broken) > 10 else ""
        raise UserError(
            f"{len(broken)} of {len(files)} {split} images cannot be read, more than "
            f"{MAX_UNREADABLE_SHARE:.0%}. Mend or remove them, or allow unreadable images. "
            f"{'; '.join(broken[:10])}{more}."
        )
    needed = data.classes if split == "train" else ()
    gone = [name for label, name in enumerate(needed) if label not in labels]
    if gone or not len(labels):
        names = _names(gone) or "any class"
        raise UserError(f"No {split} image of {names} can be read; mend them or remove the class.")
    for what in broken if say else ():
        say(f"left out {what}")
    pixels = pixels[left.index] if broken else pixels
    return Split(pixels, labels, left["path"].tolist(), left["sha256"].tolist())


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


def _check_layout(root: Path) -> None:
    layout = "train/, valid/ and test/, each with one folder of images a class"
    where = f"The data folder {quote(str(root))}"
    if not root.is_dir():
        state = "no folder" if root.exists() else "missing"
        raise UserError(f"{where} is {state}; give one with {layout}.")
    here = _entries(root, litter=[])
    real = [entry.name for entry in here if entry.is_dir(follow_symlinks=False)]
    if lacking := [name for name in SPLITS if name not in real]:
        found = _names(entry.name for entry in here[:12]) or "nothing"
        raise UserError(
            f"{where} must hold {layout}. Found: {found}. Not there, no folder, or a link, which "
            f"is not followed: {', '.join(lacking)}. Rename or move your folders so."
        )


def _entries(folder: os.PathLike, litter: list[str]) -> list[os.DirEntry]:
    """What is in a folder, by name; names of litter go to `litter` instead."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    litter.extend(entry.name for entry in entries if is_litter(entry.name))
    return [entry for entry in entries if not is_litter(entry.name)]


def _why_no_class(entry: os.DirEntry) -> str | None:
    if entry.is_symlink():
        return "is a link, not followed; put the folder itself there"
    if not entry.is_dir():
        return "ignored: it lies outside the class folders"
    if not _is_unicode(entry.name):
        raise UserError(f"The name of the folder {quote(entry.path)} is not UTF-8; rename it.")
    return None


def _why_no_image(root: Path, entry: os.DirEntry) -> str | None:
    if entry.is_symlink() and (reason := bad_link(root, Path(entry))):
        return reason
    mode = entry.stat().st_mode
    if stat.S_ISDIR(mode):
        return "it is a folder inside a class folder"
    if not stat.S_ISREG(mode):
        return "it is no regular file"
    suffix = os.path.splitext(entry.name)[1]
    if suffix.lower() not in IMAGE_EXTENSIONS:
        return f"its extension {suffix!r} is not one of {' '.join(sorted(IMAGE_EXTENSIONS))}"
    return None if _is_unicode(entry.name) else "its name is not UTF-8; rename it"


def _is_unicode(name: str) -> bool:
    return name == name.encode(errors="ignore").decode()


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(quote, names))


def _agreed_classes(counts: dict[str, Counter], notes: list[str]) -> tuple[str, ...]:
    """The classes of train, sorted; adds what valid and test lack to `notes`."""
    train = sorted(counts["train"])
    if empty := [name for name in train if not counts["train"][name]]:
        raise UserError(
            f"train/ has class folders without an image: {_names(empty)}. Put images in, or "
            f"remove these folders from every split."
        )
    if len(train) < 2:
        raise UserError(
            f"train/ has {len(train)} class folders ({_names(train) or 'none'}); at least two are "
            f"needed, one folder of images a class: train/<class>/<image>."
        )
    for split in ("valid", "test"):
        added = sorted(set(counts[split]) - set(train))
        if filled := [name for name in added if counts[split][name]]:
            raise UserError(
                f"{split}/ has classes that train/ lacks: {_names(filled)}; train/ has "
                f"{_names(train)}. Rename the folders to match, or give train/ such images."
            )
        notes.extend(f"{split}/{quote(name)} ignored: it holds no image" for name in added)
        lacking = [name for name in train if not counts[split][name]]
        if lacking == train:
            raise UserError(f"{split}/ holds no image in any class folder; put images there.")
        if lacking:
            notes.append(f"{split}/ has no image of {_names(lacking)}; no score covers them")
    if alone := [name for name in train if not counts["valid"][name] + counts["test"][name]]:
        raise UserError(
            f"Classes present in train/ only: {_names(alone)}. Give valid/ or test/ images of "
            f"them, or remove them from train/."
        )
    return tuple(train)
