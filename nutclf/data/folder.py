"""Folders `train|valid|test/<class>/<image>`: the table of files, and the pixels of a split.

Where splits are missing they are taken from the images there are; nothing on the disk moves.
"""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nutclf.config import SPLITS
from nutclf.data.likeness import HASH_SIDE, HASHED_SIDE, groups_of_like, perceptual_hashes
from nutclf.data.reader import UnreadableImage, looks_like_image, read_bytes, read_image
from nutclf.data.table import read_table
from nutclf.errors import UserError

# In either case. The reader goes by content, so WebP bytes under the name .jpg are read as well.
IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".heic", ".heif", ".avif"}
)
_NAMES_OF_SPLITS = {  # in either case; ours is the first
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "testing"),
}
_HELD_OUT_SHARE = 0.1
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
        rows = []
        for file in self.files.itertuples():
            said = f"{file.split}/{self.classes[file.label]}/"  # mostly by the path already
            whole = file.path if file.path.startswith(said) else said + file.path
            rows.append((whole, file.sha256))
        rows.sort()
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
    """Lists a data set and checks its shape; every file is hashed.

    Images are decoded only to hold splits out that the data set lacks.

    `root` is a folder, or a CSV file with a row for each image. Links to folders are not followed:
    they can lead out of the data, in a loop or to another split. Raises `UserError` when it is
    missing or no data set, or the splits disagree on the classes.
    """
    notes, litter, rows = [], [], []
    names = dict.fromkeys(SPLITS, ())  # the class folders of each split
    try:
        if Path(root).is_file() and Path(root).suffix.lower() == ".csv":
            root, listed, splits = _of_table(Path(root), notes)
        else:
            root, folders = _layout(Path(root))
            splits = tuple(folders)
            listed = _of_folders(root, folders, names, litter, notes)
        for path, split, label in listed:
            digest = ""
            try:
                with open(root / path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                notes.append(f"{quote(path)} cannot be read: {error.strerror}")
            rows.append((path, split, label, digest))
    except OSError as error:
        raise UserError(
            f"{quote(str(error.filename))} cannot be listed: {error.strerror}. Make it and the "
            f"folder around it readable, or remove it."
        ) from error
    files = pd.DataFrame(rows, columns=["path", "split", "label", "sha256"])
    lacking = [split for split in SPLITS if split not in splits]
    if lacking and len(files):
        files["split"] = _hold_out(root, files, lacking, notes)
    try:
        classes = agreed_classes(files, names, notes)
    except UserError as error:
        more = f"; and {len(notes) - 5} more" if len(notes) > 5 else ""
        what = f" Left out: {'; '.join(notes[:5])}{more}." if notes else ""
        raise UserError(f"{error}{what}") from error
    if litter:
        kinds = _names(sorted(set(litter))[:5])
        notes.append(f"{len(litter)} litter files and folders ignored ({kinds})")
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


def agreed_classes(
    files: pd.DataFrame, names: Mapping[str, Iterable[str]], notes: list[str]
) -> tuple[str, ...]:
    """The classes of train, sorted; adds what valid and test lack to `notes`.

    `files` has split and label, a name, of each image; `names` the classes that a split may have.
    Raises `UserError` where the splits disagree.
    """
    counts = {split: Counter(dict.fromkeys(names[split], 0)) for split in SPLITS}
    for split, label in zip(files["split"], files["label"], strict=True):
        counts[split][label] += 1
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


def quote(name: str) -> str:
    """A name that is safe in one line: newlines and odd bytes escaped, letters as they are."""
    return name if name.isprintable() else repr(name)


def is_image(file: Path) -> bool:
    """Whether a file is named as an image, or, without an extension, begins as one."""
    if file.suffix:
        return file.suffix.lower() in IMAGE_EXTENSIONS
    if file.is_file():  # to open a pipe would wait for ever
        with suppress(OSError), open(file, "rb") as opened:
            return looks_like_image(opened.read(16))
    return False


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


def _of_folders(
    root: Path,
    folders: dict[str, str],
    names: dict[str, tuple[str, ...]],
    litter: list[str],
    notes: list[str],
) -> Iterator[tuple[str, str, str]]:
    """Path, split and label of each image; adds the class folders of each split to `names`."""
    for split, folder in folders.items():
        for entry in _entries(root / folder, litter):
            if reason := _why_no_class(entry):
                notes.append(f"{quote((Path(folder) / entry.name).as_posix())} {reason}")
                continue
            names[split] += (entry.name,)
            for image in _images_below(root, entry, litter, notes):
                yield Path(image).relative_to(root).as_posix(), split, entry.name


def _of_table(file: Path, notes: list[str]) -> tuple[Path, list[tuple[str, str, str]], list[str]]:
    """The folder that paths of a table begin at, its images, and the splits that it has.

    A row without a split is train.
    """
    root, known = file.resolve().parent, {n: s for s, ns in _NAMES_OF_SPLITS.items() for n in ns}
    found = {}
    for path, label, named in read_table(file)[["path", "label", "split"]].itertuples(index=False):
        split = known.get(named.lower() or "train")
        if split is None or not path or not label:
            raise UserError(
                f"{quote(str(file))} has a row with the path {path!r}, label {label!r} and split "
                f"{named!r}; needed are a path, a label, and one of {', '.join(known)} or nothing."
            )
        image = (root / path.replace("\\", "/")).resolve()
        if not image.is_relative_to(root):
            notes.append(f"{quote(path)} ignored: it leads out of the table's folder")
        elif not image.is_file():
            notes.append(f"{quote(path)} ignored: there is no such file")
        elif found.setdefault(image.relative_to(root).as_posix(), (split, label)) != (split, label):
            raise UserError(f"{quote(str(file))} has {quote(path)} twice; keep one of the rows.")
    listed = sorted((path, *of) for path, of in found.items())
    listed.sort(key=lambda row: (SPLITS.index(row[1]), row[2]))
    return root, listed, sorted({split for _, split, _ in listed})


def _layout(root: Path) -> tuple[Path, dict[str, str]]:
    """The folder that holds the data, and its folder of each split that has one.

    A folder of class folders alone is all `train`.
    """
    layout = "train/, valid/ and test/ with a folder of images a class in each, or such folders"
    where = f"The data folder {quote(str(root))}"
    if not root.is_dir():
        state = "no folder" if root.exists() else "missing"
        raise UserError(f"{where} is {state}; give one with {layout}.")
    root = root.resolve()
    while True:
        here = _entries(root, litter=[])
        inside = [entry.name for entry in here if entry.is_dir(follow_symlinks=False)]
        folders = {}
        for split, known in _NAMES_OF_SPLITS.items():
            found = [entry for entry in here if entry.name.lower() in known]
            if len(found) > 1:
                both = _names(entry.name for entry in found)
                raise UserError(f"{where} has {both} for {split}; put them into one.")
            for entry in found:
                if entry.name not in inside:
                    raise UserError(
                        f"{quote(entry.path)} is no folder, or a link, which is not followed; put "
                        "the folder itself there."
                    )
                folders[split] = entry.name
        if folders or len(inside) != 1 or not _has_folders(root / inside[0]):
            break
        root /= inside[0]  # an archive is often unpacked into a folder of its own
    if not folders and len(inside) > 1:
        folders = {"train": "."}
    if "train" not in folders:
        found = _names(entry.name for entry in here[:12]) or "nothing"
        raise UserError(
            f"{where} must hold {layout}. Found: {found}; links are not followed. Rename or move "
            "your folders so."
        )
    return root, folders


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir(follow_symlinks=False) for entry in _entries(folder, litter=[]))


def _hold_out(root: Path, files: pd.DataFrame, lacking: list[str], notes: list[str]) -> pd.Series:
    """The split of each image where `lacking` ones are taken from train: a tenth of each class.

    It follows from the images' content alone, so another study or seed has the same test images,
    and images that come later leave the others where they are, but for those that they are like:
    images that show the same thing stay together. Only where none of a class falls into a split
    does the next best go there.
    """
    split, train = files["split"].copy(), files[files["split"] == "train"]
    content = train["sha256"].where(train["sha256"] != "", train["path"])
    drawn = content.map(_draw)
    groups = pd.Series(_groups_of_like(root, train["path"], content), train.index)
    leaders = drawn.sort_values(kind="stable").groupby(groups).head(1)
    for name, images in leaders.groupby(train["label"]):
        left, n_groups = images, len(images)
        for number, lacked in enumerate(lacking):
            low = (left < _HELD_OUT_SHARE * (number + 1)).sum()
            taken = left.index[: max(1, min(low, n_groups // 4))]
            split[groups.index[groups.isin(groups[taken])]] = lacked
            left = left.drop(taken)
        if left.empty:
            n_images = (train["label"] == name).sum()
            raise UserError(
                f"The class {quote(name)} has {n_images} images ({n_groups} different ones), too "
                f"few to take {' and '.join(lacking)} from; give it more, or give the folder these "
                "splits."
            )
    counts = ", ".join(f"{(split == name).sum()} {name}" for name in SPLITS)
    notes.append(f"no folder for {' and '.join(lacking)}: a tenth of train each instead ({counts})")
    return split


def _groups_of_like(root: Path, paths: Iterable[str], keys: Iterable[str]) -> np.ndarray:
    """The group of each image, int64 [N]; one that cannot be read is like its copies alone."""

    def likeness(path: str) -> np.ndarray:
        try:
            return perceptual_hashes(read_image(root / path, HASHED_SIDE)[np.newaxis])[0]
        except UnreadableImage:
            return np.zeros(HASH_SIDE**2, bool)  # as of a plain image, which is near no other

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return groups_of_like(list(keys), np.array(list(pool.map(likeness, paths))))


def _draw(content: str) -> float:
    """A number of [0, 1) that is as good as drawn, and always the same."""
    return int(hashlib.sha256(f"nutclf {content}".encode()).hexdigest()[:13], 16) / 16**13


def _images_below(
    root: Path, folder: os.DirEntry, litter: list[str], notes: list[str]
) -> Iterator[os.DirEntry]:
    """The image files of a class folder and of the folders in it."""
    for entry in _entries(folder, litter):
        if entry.is_dir(follow_symlinks=False) and _is_unicode(entry.name):
            yield from _images_below(root, entry, litter, notes)
        elif reason := _why_no_image(root, entry):
            notes.append(f"{quote(Path(entry).relative_to(root).as_posix())} ignored: {reason}")
        else:
            yield entry


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
        return "it is a link to a folder, or its name is not UTF-8"
    if not stat.S_ISREG(mode):
        return "it is no regular file"
    if not is_image(Path(entry)):
        if not (suffix := Path(entry).suffix):
            return "it has no extension, and is no image"
        return f"its extension {suffix!r} is not one of {' '.join(sorted(IMAGE_EXTENSIONS))}"
    return None if _is_unicode(entry.name) else "its name is not UTF-8; rename it"


def _is_unicode(name: str) -> bool:
    return name == name.encode(errors="ignore").decode()


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(quote, names))
