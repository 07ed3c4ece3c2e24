"""Textures for shapes that are no nuts: a relief in half lengths, and a shade about 1.

Each takes u and v (float32 of one shape), a noise and a random generator for its grain.
"""

import numpy as np


def _smooth(u, v, noise, rng):
    return 0 * u, 1 + 0.05 * noise.at(u * 2, v * 2)


def _stripes(u, v, noise, rng):
    wave = np.tanh(2 * np.sin(v * rng.uniform(8, 20) + 0.5 * noise.at(u, v)))
    return 0.02 * wave, 1 + 0.45 * wave


def _dots(u, v, noise, rng):
    fine = rng.uniform(6, 12)
    dots = np.clip(4 * np.sin(u * fine) * np.sin(v * fine) - 1.5, 0, 1)
    return -0.04 * dots, 1 - 0.75 * dots


def _pits(u, v, noise, rng):
    fine = rng.uniform(4, 8)
    pits = np.clip(4 * noise.at(u * fine, v * fine) - 1, 0, 1)
    return -0.1 * pits, 1 - 0.6 * pits


def _checker(u, v, noise, rng):
    fine = rng.uniform(6, 12)
    squares = np.tanh(6 * np.sin(u * fine) * np.sin(v * fine))
    return 0 * u, 1 + 0.45 * squares


def _wrinkles(u, v, noise, rng):
    fine = rng.uniform(2, 4)
    folds = np.clip(1 - 1.8 * np.abs(noise.fractal(u * fine, v * fine, 2)), 0, 1)
    return 0.12 * folds, 0.5 + 0.6 * folds


def _fur(u, v, noise, rng):
    hair = noise.fractal(u * 2, v * rng.uniform(9, 15), 2)
    return 0.04 * hair, 1 + 0.45 * hair


def _patches(u, v, noise, rng):
    fine = rng.uniform(4, 6)
    return 0 * u, 1 + 0.5 * np.tanh(5 * noise.at(u * fine, v * fine))


TEXTURES = (_smooth, _stripes, _dots, _pits, _checker, _wrinkles, _fur, _patches)
