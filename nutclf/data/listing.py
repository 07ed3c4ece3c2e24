"""What a class folder holds: image files to read, and notes on everything left out."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

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
