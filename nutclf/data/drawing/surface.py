"""What nuts are put together from: outlines, domes, colours and the marks on them.

Points are (u, v) in a thing's own coordinates, u along it, float32 arrays of one shape.
"""

import numpy as np

from nutclf.data.drawing.noise import Noise


def dome(d2: np.ndarray, thickness: float) -> np.ndarray:
    """The height of half an ellipsoid where `d2`, the squared distance from its middle, is below 1.

    Outside it falls off evenly, so that the outline can be drawn smooth.
    """
    return thickness * np.sqrt(np.clip(1 - d2, 0, 1)) - np.clip(np.sqrt(np.abs(d2)) - 1, 0, 1)


def drop(u: np.ndarray, v: np.ndarray, width: float, taper: float) -> np.ndarray:
    """Squared distance in a drop of half width `width` that narrows towards u = 1 by `taper`."""
    return u * u + (v / (width * (1.05 - taper * u))) ** 2


def tinted(colour: np.ndarray, shade: np.ndarray) -> np.ndarray:
    """A colour [3] darkened or lightened point by point: [h, w, 3], 0 and above."""
    return np.clip(shade, 0.05, 1.6)[..., None] * colour


def mix(share: np.ndarray, colour: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """`colour` ([3] or [h, w, 3]) laid over `onto` where `share`, clipped to 0..1, says so."""
    return onto + np.clip(share, 0, 1)[..., None] * (colour - onto)


def hue(rng: np.random.Generator, red: float, green: float, blue: float) -> np.ndarray:
    """A colour near the given one: no two nuts are alike, and kinds overlap."""
    spread = rng.normal(0, 0.035, 3) + rng.normal(0, 0.05)
    return (np.array([red, green, blue]) + spread).clip(0.03, 1).astype(np.float32)


def furrows(u: np.ndarray, v: np.ndarray, fine: float, noise: Noise) -> np.ndarray:
    """Fine uneven lines along u, about -1..1; `fine` of them to a unit across."""
    return noise.fractal(u * 1.2, v * fine, 2)


def wrinkles(u: np.ndarray, v: np.ndarray, fine: float, noise: Noise) -> np.ndarray:
    """Winding ridges, 0 in the furrows to 1: the folds of a walnut."""
    return np.clip(1 - 1.8 * np.abs(noise.fractal(u * fine, v * fine, 2)), 0, 1)


def spots(u: np.ndarray, v: np.ndarray, fine: float, noise: Noise) -> np.ndarray:
    """Scattered pits, 0 to 1, rare."""
    return np.clip(3 * noise.at(u * fine, v * fine) - 1.2, 0, 1)


def blob(u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """1 in a round spot about the origin, falling to 0 at `radius` with a soft edge."""
    return np.clip(3 * (1 - np.hypot(u, v) / radius), 0, 1)
