"""Solids on a canvas: each is a height and a colour over the plane, lit by one lamp."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, shift

# Half as much again as the picture: edges come out smooth, at a quarter of the cost of double size.
CANVAS = 144


@dataclass(frozen=True)
class Solid:
    """One thing, as its artist describes it on a patch of the plane.

    Attributes:
      height: elevation above the ground in units of the thing's half length, float32 [h, w];
        above 0 inside the outline.
      colour: of the surface in white light, 0..1, float32 [h, w, 3].
      gloss: strength of the highlight, 0 (felt) to 1 (varnish).
    """

    height: np.ndarray
    colour: np.ndarray
    gloss: float = 0.1


Artist = Callable[[np.ndarray, np.ndarray, np.random.Generator], Solid]
"""Draws a thing in its own coordinates: u along it and v across, outline within -1..1."""


@dataclass(frozen=True)
class Pose:
    """Where a thing lies.

    Attributes:
      x, y: its middle, in canvas pixels.
      size: half of its length, in canvas pixels.
      turn: of its long axis, radians.
      squash: foreshortening: its length as a share of the true one, with direction `tilt`.
      tilt: radians.
    """

    x: float
    y: float
    size: float
    turn: float
    squash: float = 1.0
    tilt: float = 0.0


def random_pose(rng: np.random.Generator, x: float, y: float, size: float) -> Pose:
    """A pose at a given place and size, turned at will and tilted a little."""
    # Python's floats leave float32 arrays as they are; NumPy's own would widen them.
    x, y, size = float(x), float(y), float(size)
    turn, squash, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1), rng.uniform(0, np.pi)
    return Pose(x, y, size, turn, squash, tilt)


@dataclass(frozen=True)
class Light:
    """One lamp and the light of the room.

    Attributes:
      direction: unit vector to the lamp, (x, y, z) with z towards the viewer.
      ambient: share of the light that comes from everywhere.
      softness: blur of the shadows, in canvas pixels.
    """

    direction: np.ndarray
    ambient: float
    softness: float


def random_light(rng: np.random.Generator) -> Light:
    """A lamp at 25 to 70 degrees above the table, from any side."""
    around, above = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(25, 70))
    level = np.cos(above)
    direction = np.array([level * np.cos(around), level * np.sin(around), np.sin(above)])
    return Light(direction.astype(np.float32), rng.uniform(0.25, 0.6), rng.uniform(1, 5))


def place(
    canvas: np.ndarray, artist: Artist, pose: Pose, light: Light, rng: np.random.Generator
) -> None:
    """Draws one thing and its shadow onto `canvas` (float32 [CANVAS, CANVAS, 3]), in place."""
    box = _box(pose)
    if box is None:
        return
    rows, columns = box
    u, v = _own_coordinates(pose, rows, columns)
    solid = artist(u, v, rng)
    height = np.clip(solid.height, -0.5, None) * pose.size
    patch = canvas[rows, columns]
    inside = np.clip(height + 0.5, 0, 1)[..., None]
    patch *= 1 - 0.65 * (1 - light.ambient) * _shadow(height, light)[..., None]
    patch += inside * (_shade(height, solid, light) - patch)


def _box(pose: Pose) -> tuple[slice, slice] | None:
    """The part of the canvas that the thing and its shadow can touch; None when they miss it."""
    reach = 1.35 * pose.size + 6
    sides = []
    for middle in (pose.y, pose.x):
        start, stop = max(0, int(middle - reach)), min(CANVAS, int(middle + reach) + 1)
        if stop - start < 3:  # a gradient needs a few pixels
            return None
        sides.append(slice(start, stop))
    return sides[0], sides[1]


def _own_coordinates(pose: Pose, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    y = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - pose.y) / pose.size
    x = (np.arange(columns.start, columns.stop, dtype=np.float32) - pose.x) / pose.size
    c, s = math.cos(pose.tilt), math.sin(pose.tilt)
    stretch = (c * x + s * y) * (1 / pose.squash - 1)
    x, y = x + c * stretch, y + s * stretch
    c, s = math.cos(pose.turn), math.sin(pose.turn)
    return c * x + s * y, c * y - s * x


def _shadow(height: np.ndarray, light: Light) -> np.ndarray:
    """How far the thing keeps the lamp off the ground, 0..1: its outline, moved and blurred."""
    tall = max(float(height.max()), 0.0) * 0.5
    x, y = (-light.direction[:2] / light.direction[2] * tall).round()
    moved = shift((height > 0).astype(np.float32), (y, x), order=0)
    return gaussian_filter(moved, light.softness)


def _shade(height: np.ndarray, solid: Solid, light: Light) -> np.ndarray:
    """The lit surface: Lambert's law, and Blinn's highlight for a viewer straight above."""
    slope_y, slope_x = np.gradient(height)
    steep = np.sqrt(slope_x**2 + slope_y**2 + 1)
    lx, ly, lz = light.direction
    facing = np.clip((lz - lx * slope_x - ly * slope_y) / steep, 0, 1)
    hx, hy, hz = light.direction + np.float32([0, 0, 1])
    halfway = np.clip((hz - hx * slope_x - hy * slope_y) / steep, 0, None)
    highlight = halfway / np.sqrt(hx**2 + hy**2 + hz**2)
    for _ in range(5):  # to the 32nd power, in a tenth of the time of `**`
        highlight *= highlight
    brightness = light.ambient + (1.25 - light.ambient) * facing
    return solid.colour * brightness[..., None] + (solid.gloss * 0.6 * highlight)[..., None]
