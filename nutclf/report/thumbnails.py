"""Pictures of the data set inside the page: small JPEGs as data addresses."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from nutclf.data.reader import UnreadableImage, read_image
from nutclf.evaluate.spotlight import spotlight

SIDE = 168  # pixels; shown at half of that to a third on a phone's dense screen
_QUALITY = 78


def thumbnail(root: Path, path: str, heat: list[list[float]] | None = None) -> str:
    """A `data:` address of an image of the data set; "" where it cannot be read any more.

    Args:
      root: folder of the data set.
      path: of the image, relative to it.
      heat: lays this map over the picture, rows of numbers 0 to 1.
    """
    try:
        pixels = read_image(root / path, SIDE)
    except (UnreadableImage, OSError):
        return ""
    shown = pixels if heat is None else spotlight(pixels, np.array(heat))
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
