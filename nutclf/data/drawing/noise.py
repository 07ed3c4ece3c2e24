"""Smooth periodic noise on the plane: what makes a drawn surface look grown, not made."""

from functools import lru_cache

import numpy as np

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
        """The field at every point, mostly within -1..1; x and y of one shape, float32.

        Bilinear, by hand: `scipy.ndimage.map_coordinates` takes twice the time.
        """
        (left, right, x), (top, bottom, y) = _neighbours(x), _neighbours(y)
        top, bottom, field = top * _SAMPLES, bottom * _SAMPLES, self._field.ravel()
        upper, lower = field.take(top + left), field.take(bottom + left)
        upper += x * (field.take(top + right) - upper)
        lower += x * (field.take(bottom + right) - lower)
        return upper + y * (lower - upper)

    def fractal(self, x: np.ndarray, y: np.ndarray, octaves: int = 2) -> np.ndarray:
        """Octaves of the field added up, each twice as fine and half as strong as the last."""
        total = self.at(x, y)
        for octave in range(1, octaves):
            # The shift keeps the octaves from meeting in the lattice point (0, 0).
            total = total + self.at(x * 2**octave + 3.7, y * 2**octave + 1.3) / 2**octave
        return total


def _neighbours(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The samples before and after each x, and how far x is from the first, 0..1."""
    x = np.asarray(x, np.float32) * np.float32(_SAMPLES / _CELLS)
    before = np.floor(x)
    first = before.astype(np.int32) & (_SAMPLES - 1)  # a power of two: `%` takes ten times longer
    return first, (first + 1) & (_SAMPLES - 1), x - before


@lru_cache(maxsize=1)
def _spline() -> np.ndarray:
    """Weights [samples, cells] of the periodic cubic B-spline, scaled for a field within -1..1."""
    distance = np.arange(_SAMPLES)[:, None] * (_CELLS / _SAMPLES) - np.arange(_CELLS)[None, :]
    t = np.abs((distance + _CELLS / 2) % _CELLS - _CELLS / 2)
    near, far = 2 / 3 - t**2 + t**3 / 2, (2 - t) ** 3 / 6
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    # The field gets a standard deviation of a half: sqrt(1/2) from each of its two directions.
    return (weights / np.sqrt(2 * (weights**2).sum(1).mean())).astype(np.float32)
