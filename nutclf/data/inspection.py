"""Each image file of a data set looked at once: its header, whether it decodes, how it looks."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nutclf.data.folder import ImageFolder
from nutclf.data.likeness import perceptual_hashes
from nutclf.data.pixels import orientation, square
from nutclf.data.quiet import pillow_silenced
from nutclf.data.reader import FORMATS, UnreadableImage, decode, read_bytes

HASHED_SIDE = 224
"""Pixels of the square that is hashed; of any size, so that hashes do not depend on a network."""

UPRIGHT = 1  # EXIF's orientation of an image that needs no turn


@dataclass(frozen=True)
class Header:
    """What a file says of itself before a pixel is decoded.

    Attributes:
      format: of the content, Pillow's name: JPEG, PNG, ...
      width, height: as stored, before any EXIF turn.
      mode: Pillow's: RGB, L, P, CMYK, ...
      orientation: EXIF's, 1 (upright) to 8; 1 where there is none or it makes no sense.
    """

    format: str
    width: int
    height: int
    mode: str
    orientation: int


@dataclass(frozen=True, eq=False)
class Seen:
    """One file of a data set, looked at.

    Attributes:
      path: posix, relative to the data set's folder.
      split, label: the names of its folders.
      sha256: of its bytes; "" when they cannot be read.
      header: None when no image is recognised in it.
      problem: why it cannot be read; "" when it can.
      likeness: its perceptual hash, bool [256]; None when it cannot be read.
    """

    path: str
    split: str
    label: str
    sha256: str
    header: Header | None
    problem: str
    likeness: np.ndarray | None


def inspect(folder: ImageFolder) -> Sequence[Seen]:
    """Looks at every file of a data set, in the order of `folder.files`; keeps no pixels."""
    rows = zip(*(folder.files[name] for name in ("path", "split", "label", "sha256")), strict=True)
    # Threads, not processes: Pillow lets go of the interpreter while it decodes and resizes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda row: _look(folder, *row), rows))


def _look(folder: ImageFolder, path: str, split: str, label: int, sha256: str) -> Seen:
    header, problem, likeness = None, "", None
    try:
        data = read_bytes(folder.root / path)
        header = read_header(data)
        pixels = np.array(square(decode(data), HASHED_SIDE))
        likeness = perceptual_hashes(pixels[np.newaxis])[0]
    except UnreadableImage as error:
        problem = str(error)
    return Seen(path, split, folder.classes[label], sha256, header, problem, likeness)


def read_header(data: bytes) -> Header | None:
    """The header of an image file; None when the content is no image that this package reads."""
    try:
        with pillow_silenced(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # A JPEG with further pictures behind the first is one all the same.
            kind = "JPEG" if image.format == "MPO" else image.format
            turn = orientation(image)
            known = turn if isinstance(turn, int) and turn in range(UPRIGHT, 9) else UPRIGHT
            return Header(kind, image.width, image.height, image.mode, known)
    except Exception:  # a damaged header can raise nearly anything; `decode` gives the reason
        return None
