"""The embedded data set: ten kinds of nut drawn from code, the same for everyone from a seed."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock
from PIL import Image

from nutclf.data import drawing
from nutclf.data.drawing.nuts import CLASSES, draw
from nutclf.errors import UserError

COUNTS = MappingProxyType({"train": 60, "valid": 20, "test": 20})
"""Pictures a class, by split."""


def ensure(parent: Path, seed: int = 0) -> Path:
    """The folder of the drawn data set, drawn now if it is not there yet (about 8 s).

    Args:
      parent: made if missing. It also holds a lock file, and while drawing an unfinished folder
        whose name starts with a dot.
      seed: of the data set, 0 and up.

    Returns:
      `<parent>/drawn-<seed>-<version>`, with `train|valid|test/<class>/<index>.png` in it. It is
      there whole or not at all, also when processes are killed or several ask at once.

    Raises:
      UserError: the folder cannot be written.
    """
    folder = parent / f"drawn-{seed}-{_version()}"
    if folder.is_dir():
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f".{folder.name}.lock"):
            if not folder.is_dir():  # another process may have drawn it while this one waited
                _draw_all(parent / f".{folder.name}.unfinished", seed).rename(folder)
    except OSError as error:
        raise UserError(
            f"The drawn images cannot be written to {parent}: {error.strerror or error}. "
            f"Free some space there or make it writable."
        ) from error
    return folder


def _version() -> str:
    """Ten hexadecimal digits that change with anything that draws, and with the counts.

    The code itself is hashed: a number to be raised by hand would be forgotten one day, and two
    data sets would go by one name.
    """
    digest = hashlib.sha256(repr(sorted(COUNTS.items())).encode())
    for file in (Path(__file__), *sorted(Path(drawing.__file__).parent.glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:10]


def _draw_all(folder: Path, seed: int) -> Path:
    """Draws every picture below `folder`, whatever a killed process may have left there."""
    if folder.exists():
        shutil.rmtree(folder)
    jobs = []
    for split, count in COUNTS.items():
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            jobs += [(label, split, index) for index in range(count)]

    def save(label: int, split: str, index: int) -> None:
        picture = Image.fromarray(draw(label, split, index, seed))
        picture.save(folder / split / CLASSES[label] / f"{index:03}.png")

    with ThreadPoolExecutor() as pool:
        list(pool.map(save, *zip(*jobs, strict=True)))
    return folder
