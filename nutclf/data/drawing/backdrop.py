"""What a thing lies on and among: cloth, wood, paper, leaves, crumbs."""

import math

import numpy as np

from nutclf.data.drawing.noise import Noise
from nutclf.data.drawing.scene import CANVAS, Light, Solid, place, random_pose


def backdrop(rng: np.random.Generator) -> np.ndarray:
    """An empty table, float32 0..1 [CANVAS, CANVAS, 3]."""
    x = np.arange(CANVAS, dtype=np.float32) / CANVAS
    y, turn = x[:, None], rng.uniform(0, 2 * np.pi)
    c, s = math.cos(turn), math.sin(turn)
    table = (_paper, _gradient, _cloth, _wood)[rng.integers(4)]
    return table(c * x + s * y, c * y - s * x, rng)


def plain(rng: np.random.Generator) -> np.ndarray:
    """An empty sheet of paper, float32 0..1 [CANVAS, CANVAS, 3]."""
    return np.ones((CANVAS, CANVAS, 3), np.float32) * _tone(rng)


def scatter(canvas: np.ndarray, light: Light, rng: np.random.Generator) -> None:
    """Drops leaves and crumbs anywhere on the canvas, in place."""
    for artist, most, smallest, largest in ((leaf, 2, 15, 45), (crumb, 7, 2, 8)):
        for _ in range(rng.integers(most + 1)):
            x, y = rng.uniform(0, CANVAS, 2)
            place(
                canvas, artist, random_pose(rng, x, y, rng.uniform(smallest, largest)), light, rng
            )


def leaf(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> Solid:
    """A flat pointed leaf with a midrib, from green to dry brown."""
    width = rng.uniform(0.25, 0.5) * np.clip(1 - u * u, 0, None)
    height = np.minimum(0.3 * (width - np.abs(v)), 0.05)
    ribs = np.abs(np.sin(9 * (u - np.abs(v)) + rng.uniform(0, 6)))
    green, dry = np.float32([0.25, 0.42, 0.15]), np.float32([0.5, 0.34, 0.18])
    colour = green + rng.uniform(0, 1) * (dry - green)
    veins = 0.75 + 0.25 * np.minimum(ribs, np.clip(np.abs(v) * 12, 0, 1))
    return Solid(height, veins[..., None] * colour, rng.uniform(0, 0.4))


def crumb(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> Solid:
    """A chip of shell or kernel."""
    bumps = np.sin(rng.uniform(2, 5) * u + rng.uniform(0, 6)) * np.sin(rng.uniform(2, 5) * v)
    height = 0.5 * np.clip(0.7 + 0.3 * bumps - np.hypot(u, v), -1, 0.3)
    colour = rng.uniform(0.15, 0.95) * np.float32(
        [1, rng.uniform(0.6, 0.95), rng.uniform(0.3, 0.8)]
    )
    return Solid(height, np.broadcast_to(colour, (*u.shape, 3)), 0.1)


def _paper(along, across, rng):
    return plain(rng)


def _gradient(along, across, rng):
    share = np.clip(along * 0.7 + 0.3, 0, 1)[..., None]
    return _tone(rng) * (1 - share) + _tone(rng) * share


def _cloth(along, across, rng):
    fine = rng.uniform(60, 160)
    weave = np.sin(along * fine) * np.sin(across * fine)
    stripes = rng.uniform(0, 0.4) * (np.sin(along * rng.uniform(8, 40)) > 0.3)
    folds = 0.12 * Noise(rng).at(along * 3, across * 3)
    shade = 1 + rng.uniform(0.05, 0.2) * weave + folds
    colour = _tone(rng) + stripes[..., None] * (_tone(rng) - 0.5)
    return (shade[..., None] * colour).astype(np.float32)


def _wood(along, across, rng):
    noise = Noise(rng)
    rings = np.sin(rng.uniform(10, 30) * across + 3 * noise.at(along * 0.8, across * 4))
    grain = noise.at(along * 2, across * 40)
    shade = 1 + 0.12 * rings + 0.08 * grain
    planks = np.where(np.abs((across * rng.uniform(1, 3)) % 1 - 0.5) > 0.485, 0.4, 1)
    colour = rng.uniform(0.3, 0.9) * np.float32([1, rng.uniform(0.65, 0.9), rng.uniform(0.4, 0.75)])
    return ((shade * planks)[..., None] * colour).astype(np.float32)


def _tone(rng: np.random.Generator) -> np.ndarray:
    """A table's colour: greyish, light or dark."""
    return (rng.uniform(0.1, 0.95) + rng.normal(0, 0.07, 3)).clip(0.03, 1).astype(np.float32)
