"""Outlines of shapes that are no nuts: how far a point is from the middle, 1 on the edge.

Each takes u and v (float32 of one shape) and a random generator for its proportions.
"""

import numpy as np


def _polygon(sides):
    def distance(u, v, rng):
        angle = np.arctan2(v, u)
        sector = 2 * np.pi / sides
        off = (angle % sector) - sector / 2
        return np.hypot(u, v) * np.cos(off) / np.cos(sector / 2) / rng.uniform(0.9, 1)

    return distance


def _star(u, v, rng):
    points = rng.integers(4, 7)
    wave = np.abs((np.arctan2(v, u) * points / (2 * np.pi)) % 1 - 0.5) * 2
    return np.hypot(u, v) / (rng.uniform(0.4, 0.55) + (1 - rng.uniform(0.4, 0.55)) * wave)


def _crescent(u, v, rng):
    bite = 1.6 - np.hypot(u - rng.uniform(0.5, 0.8), v) / rng.uniform(0.75, 0.95)
    return np.maximum(np.hypot(u, v), bite)


def _ring(u, v, rng):
    thick = rng.uniform(0.15, 0.3)
    return np.abs(np.hypot(u, v) - (1 - thick)) / thick


def _bars(*bars):
    """A figure of upright rectangles (middle u, middle v, half length, half width)."""

    def distance(u, v, rng):
        fat = rng.uniform(0.85, 1.15)
        inside = [
            np.minimum(length - np.abs(u - x), width * fat - np.abs(v - y)) / (width * fat)
            for x, y, length, width in bars
        ]
        return 1 - np.maximum.reduce(inside)

    return distance


def _heart(u, v, rng):
    x, y = np.abs(v) * 1.1, u * 1.1 + 0.25
    return np.hypot(x, y - 0.75 * np.sqrt(x + 1e-3) * rng.uniform(0.9, 1.1)) / 0.9


def _egg(u, v, rng):
    return np.hypot(u, v / (rng.uniform(0.4, 0.95) * (1 - rng.uniform(0, 0.3) * np.clip(u, -1, 1))))


def _arch(u, v, rng):
    thick, bend = rng.uniform(0.12, 0.22), rng.uniform(1.3, 2.2)
    along = np.clip(np.arctan2(u, v + 0.3), -bend, bend)
    away = np.hypot(u - 0.8 * np.sin(along), v + 0.3 - 0.8 * np.cos(along))
    return away / thick


def _wave(u, v, rng):
    middle = rng.uniform(0.15, 0.3) * np.sin(rng.uniform(4, 7) * u)
    return np.maximum(np.abs(v - middle) / rng.uniform(0.15, 0.25), np.abs(u))


def _spindle(u, v, rng):
    return np.abs(v) / (rng.uniform(0.25, 0.6) * np.clip(1 - u * u, 1e-2, 1)) + (np.abs(u) > 1)


OUTLINES = (
    _polygon(3),
    _polygon(4),
    _polygon(6),
    _star,
    _crescent,
    _ring,
    _bars((0, 0, 0.95, 0.28), (0, 0, 0.28, 0.95)),
    _bars((0, 0.6, 0.9, 0.25), (-0.65, 0, 0.25, 0.85)),
    _heart,
    _egg,
    _arch,
    _wave,
    _spindle,
)
