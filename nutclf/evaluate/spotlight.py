"""A picture in grey, warm where a network looked."""

import numpy as np
from PIL import Image

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
_WARM = np.array((255, 96, 32))
_COVER = 0.7  # of the grey picture by the colour, where the heat is 1


def spotlight(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lays a coarse map over a picture.

    Args:
      pixels: uint8 RGB [S, S, 3].
      heat: float [h, w], 0 to 1; enlarged to the picture, smoothly.

    Returns:
      uint8 RGB [S, S, 3]: grey where the heat is 0. A colour is seen on dark pictures and on bright
      ones, which brightness is not.
    """
    height, width = pixels.shape[:2]
    coarse = Image.fromarray(np.asarray(heat, np.float32))
    fine = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    share = _COVER * np.clip(fine, 0, 1)[..., None]
    grey = (pixels @ np.array(_GREY))[..., None]
    return np.rint((1 - share) * grey + share * _WARM).astype(np.uint8)
