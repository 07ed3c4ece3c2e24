"""A folder `train|valid|test/<class>/<image>`: its classes, its files, and their pixels."""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from nutclf.config import SPLITS
from nutclf.data.reader import UnreadableImage, read_image
from nutclf.errors import UserError

# In either case. The reader goes by content, so WebP bytes under the name .jpg are read as well.
IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
)
_LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"})


@dataclass
class Notes:
    """What a scan left out, in words for the person who owns the folder."""

    lines: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)

    def summary(self) -> tuple[str, ...]:
        """The notes in the order of the scan; litter is counted in one line at the end."""
        if not self.litter:
            return tuple(self.lines)
        kinds = ", ".join(quote(name) for name in sorted(set(self.litter))[:5])
        return (*self.lines, f"{len(self.litter)} litter files and folders ignored ({kinds})")


def quote(name: str) -> str:
    """A name that is safe in one line: newlines and odd bytes escaped, letters as they are."""
    return name if name.isprintable() else repr(name)


def is_litter(name: str) -> bool:
    """Whether a name is one that systems and tools leave behind: dot-files, Thumbs.db and such."""
    return name.startswith(".") or name.lower() in _LITTER


def entries(folder: Path) -> list[os.DirEntry]:
    """Everything in a folder, sorted by name. Raises `UserError` when it cannot be listed."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"The folder {quote(str(folder))} cannot be listed: {error.strerror}. "
            f"Make it readable, or remove it."
        ) from error


def subfolders(root: Path, below: str, notes: Notes) -> Iterator[str]:
    """Names of the real folders in `root/below`; links to folders are never followed.

    A link can lead out of the data, back into it (a loop), or from one split into another.
    """
    for entry in entries(root / below):
        shown = quote(f"{below}/{entry.name}")
        if is_litter(entry.name):
            notes.litter.append(entry.name)
        elif entry.is_dir(follow_symlinks=False):
            if not _is_unicode(entry.name):
                raise UserError(f"The name of the folder {shown} is not UTF-8; rename it.")
            yield entry.name
        elif entry.is_symlink():
            notes.lines.append(f"{shown} is a link, not followed; put the folder itself there")
        else:
            notes.lines.append(f"{shown} ignored: it lies outside the class folders")


def images(root: Path, below: str, notes: Notes) -> Iterator[tuple[str, str]]:
    """The image files of one class folder as (posix path from the root, sha256 of the bytes).

    Args:
      root: resolved folder of the whole data set; no file outside it is opened.
      below: the class folder, `split/class`.
      notes: gets a line for every file left out.

    Yields:
      Files by name. A file that cannot be read has the sha256 "" and a note.
    """
    for entry in entries(root / below):
        path = f"{below}/{entry.name}"
        if is_litter(entry.name):
            notes.litter.append(entry.name)
        elif reason := _left_out(root, entry):
            notes.lines.append(f"{quote(path)} ignored: {reason}")
        else:
            digest, reason = _sha256(root / path)
            if reason:
                notes.lines.append(f"{quote(path)} cannot be read: {reason}")
            yield path, digest


def _left_out(root: Path, entry: os.DirEntry) -> str | None:
    """Why an entry of a class folder is no image file; None when it is one."""
    if entry.is_symlink() and (reason := bad_link(root, Path(entry.path))):
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


def bad_link(root: Path, link: Path) -> str | None:
    """Why a link is not followed; None for one that stays in `root`, itself free of links."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # Python 3.11 says RuntimeError for a loop, later ones OSError
        return "it is a link that leads nowhere, or in a loop"
    return None if target.is_relative_to(root) else "it is a link that leaves the data folder"


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sha256(path: Path) -> tuple[str, str | None]:
    """The digest of a file and None, or "" and the reason why it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), None
    except OSError as error:
        return "", error.strerror


def checked_root(root: Path) -> Path:
    """The folder, absolute with links resolved. Raises `UserError` unless it has every split."""
    layout = "train/, valid/ and test/, each with one folder of images a class"
    if not root.is_dir():
        state = "no folder" if root.exists() else "missing"
        raise UserError(f"The data folder {quote(str(root))} is {state}; give one with {layout}.")
    here = {entry.name: entry for entry in entries(root)}
    links = [name for name in SPLITS if name in here and here[name].is_symlink()]
    lacking = [name for name in SPLITS if name not in here or not here[name].is_dir()]
    if lacking or links:
        found = _names(list(here)[:12]) or "nothing"
        raise UserError(
            f"The data folder {quote(str(root))} must hold {layout}. Found: {found}. "
            + (f"Not there, or no folder: {', '.join(lacking)}. " if lacking else "")
            + (f"Links, which are not followed: {', '.join(links)}. " if links else "")
            + "Rename or move your folders so."
        )
    return root.resolve()


def agree(counts: Mapping[str, Mapping[str, int]], notes: Notes) -> tuple[str, ...]:
    """The class names in the order of their indices, after all splits were held against train.

    Args:
      counts: split -> class folder -> number of image files in it; the three splits of config.
      notes: gets a line for each class that one of valid and test lacks.

    Returns:
      Class folders of train, sorted by name.

    Raises:
      UserError: a class of train is empty or has no counterpart, another split adds a class, a
        split is empty, or there are fewer than two classes.
    """
    classes = tuple(sorted(counts["train"]))
    _check_train(counts["train"])
    for split in ("valid", "test"):
        _check_against_train(split, counts[split], classes, notes)
    _check_counterparts(classes, counts, notes)
    return classes


def _names(names: list[str]) -> str:
    return ", ".join(quote(name) for name in names)


def _check_train(train: Mapping[str, int]) -> None:
    if empty := sorted(name for name, count in train.items() if not count):
        raise UserError(
            f"train/ has class folders without an image: {_names(empty)}. Every class needs images "
            f"to learn from; fill these folders or remove them from every split."
        )
    if len(train) < 2:
        raise UserError(
            f"train/ has {len(train)} class folders ({_names(sorted(train)) or 'none'}); at least "
            f"two are needed, one folder of images a class: train/<class>/<image>."
        )


def _check_against_train(
    split: str, counts: Mapping[str, int], classes: tuple[str, ...], notes: Notes
) -> None:
    added = sorted(set(counts) - set(classes))
    if filled := [name for name in added if counts[name]]:
        raise UserError(
            f"{split}/ has classes that train/ lacks: {_names(filled)}; train/ has "
            f"{_names(list(classes))}. Rename the folders to match, or give train/ such images."
        )
    notes.lines.extend(f"{split}/{quote(name)} ignored: it holds no image" for name in added)
    if not any(counts.values()):
        raise UserError(f"{split}/ holds no image in any class folder; put {split} images there.")


def _check_counterparts(
    classes: tuple[str, ...], counts: Mapping[str, Mapping[str, int]], notes: Notes
) -> None:
    lacking = {
        split: [name for name in classes if not counts[split].get(name)]
        for split in ("valid", "test")
    }
    if alone := sorted(set(lacking["valid"]) & set(lacking["test"])):
        raise UserError(
            f"Classes present in train/ only: {_names(alone)}. Give valid/ or test/ images of "
            f"them, or remove them from train/."
        )
    for split, names in lacking.items():
        if names:
            notes.lines.append(f"{split}/ has no image of {_names(names)}; no score covers them")


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
