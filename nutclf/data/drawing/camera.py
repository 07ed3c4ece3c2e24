"""From the canvas to the picture: exposure, white balance, focus, sensor noise."""

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE = 96
"""Of a picture, in pixels: the input of the small network that the package ships."""


def develop(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture, uint8 [SIDE, SIDE, 3], of a lit canvas, float32 0..1 and above."""
    warmth, tint = rng.normal(0, 0.07), rng.normal(0, 0.03)
    gains = np.float32([1 + warmth, 1 + tint, 1 - warmth]) * rng.uniform(0.8, 1.2)
    exposed = np.clip(canvas * gains, 0, 1) ** np.float32(rng.uniform(0.75, 1.3))
    focus = max(0.0, rng.normal(0.5, 0.6))
    if focus > 0.2:
        exposed = gaussian_filter(exposed, (focus, focus, 0))
    full = Image.fromarray((exposed * 255).astype(np.uint8))
    small = np.asarray(full.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    grain = rng.uniform(1, 8) * rng.standard_normal(small.shape, np.float32)
    return np.clip(small + grain, 0, 255).astype(np.uint8)
