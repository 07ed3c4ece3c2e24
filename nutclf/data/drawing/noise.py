"""Smooth periodic noise on the plane: what makes a drawn surface look grown, not made."""

from functools import lru_cache

import numpy as np
from scipy.ndimage import map_coordinates

_CELLS = 16
_SAMPLES = 128


class Noise:
    """One fixed random field; a unit of x or y is one cell, after 16 of them it repeats.

    Args:
      rng: draws the 256 values of the lattice.
    """

    def __init__(self, rng: np.random.Generator):
        lattice = rng.normal(size=(_CELLS, _CELLS)).astype(np.float32)
        weights = _spline()
        # Two small products instead of a two-dimensional zoom, which takes a hundred times longer.
        self._field = weights @ lattice @ weights.T

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The field at every point, mostly within -1..1; x and y of one shape, float32."""
        points = np.stack([y, x]) * np.float32(_SAMPLES / _CELLS)
        return map_coordinates(self._field, points, order=1, mode="grid-wrap")

    def fractal(self, x: np.ndarray, y: np.ndarray, octaves: int = 2) -> np.ndarray:
        """Octaves of the field added up, each twice as fine and half as strong as the one before."""
        total = self.at(x, y)
        for octave in range(1, octaves):
            # The shift keeps the octaves from meeting in the lattice point (0, 0).
            total = total + self.at(x * 2**octave + 3.7, y * 2**octave + 1.3) / 2**octave
        return total


@lru_cache(maxsize=1)
def _spline() -> np.ndarray:
    """Weights [samples, cells] of the periodic cubic B-spline, scaled for a field within -1..1."""
    distance = np.arange(_SAMPLES)[:, None] * (_CELLS / _SAMPLES) - np.arange(_CELLS)[None, :]
    t = np.abs((distance + _CELLS / 2) % _CELLS - _CELLS / 2)
    near, far = 2 / 3 - t**2 + t**3 / 2, (2 - t) ** 3 / 6
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    # The field gets a standard deviation of a half: sqrt(1/2) from each of its two directions.
    return (weights / np.sqrt(2 * (weights**2).sum(1).mean())).astype(np.float32)
