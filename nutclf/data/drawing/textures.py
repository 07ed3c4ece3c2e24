"""Textures for shapes that are no nuts: a relief in half lengths, and a shade about 1.

Each takes u and v (float32 of one shape), a noise and a random generator for its grain.
"""

import numpy as np


def _smooth(u, v, noise, rng):
    return 0 * u, 1 + 0.05 * noise.at(u * 2, v * 2)


def _stripes(u, v, noise, rng):
    wave = np.sin(v * rng.uniform(10, 25) + 0.5 * noise.at(u, v))
    return 0.02 * wave, 1 + 0.35 * wave


def _ribs(u, v, noise, rng):
    ribs = np.abs(np.sin(v * rng.uniform(4, 9) + 0.3 * noise.at(u, v)))
    return 0.15 * ribs, 0.7 + 0.4 * ribs


def _dots(u, v, noise, rng):
    fine = rng.uniform(7, 14)
    dots = np.clip(4 * np.sin(u * fine) * np.sin(v * fine) - 1.5, 0, 1)
    return -0.04 * dots, 1 - 0.55 * dots


def _pits(u, v, noise, rng):
    fine = rng.uniform(4, 9)
    pits = np.clip(3 * noise.at(u * fine, v * fine) - 1, 0, 1)
    return -0.08 * pits, 1 - 0.4 * pits


def _checker(u, v, noise, rng):
    fine = rng.uniform(6, 14)
    squares = np.tanh(6 * np.sin(u * fine) * np.sin(v * fine))
    return 0 * u, 1 + 0.35 * squares


def _wrinkles(u, v, noise, rng):
    fine = rng.uniform(1.8, 4)
    folds = np.clip(1 - 1.8 * np.abs(noise.fractal(u * fine, v * fine, 2)), 0, 1)
    return 0.1 * folds, 0.65 + 0.45 * folds


def _fur(u, v, noise, rng):
    hair = noise.fractal(u * 2, v * rng.uniform(9, 18), 2)
    return 0.03 * hair, 1 + 0.35 * hair


def _patches(u, v, noise, rng):
    patches = np.tanh(5 * noise.fractal(u * rng.uniform(1, 2), v * 2, 2))
    return 0 * u, 1 + 0.4 * patches


def _cleft(u, v, noise, rng):
    cut = np.clip(1 - np.abs(v - 0.2 * np.sin(2 * u + rng.uniform(0, 6))) * 12, 0, 1)
    return -0.15 * cut, 1 - 0.6 * cut


TEXTURES = (
    _smooth,
    _stripes,
    _ribs,
    _dots,
    _pits,
    _checker,
    _wrinkles,
    _fur,
    _patches,
    _cleft,
)
