"""Nuts in their shells, one artist a kind (`scene.Artist`)."""

import numpy as np

from nutclf.data.drawing.noise import Noise
from nutclf.data.drawing.scene import Solid
from nutclf.data.drawing.surface import blob, dome, drop, furrows, hue, mix, spots, tinted, wrinkles


def almond(u, v, rng):
    """Buff, drop-shaped, full of pits."""
    noise = Noise(rng)
    pits = spots(u, v, rng.uniform(7, 10), noise)
    height = dome(drop(u, v, rng.uniform(0.55, 0.68), 0.3), 0.45) - 0.05 * pits
    shade = 1 + 0.15 * furrows(u, v, 5, noise) - 0.45 * pits
    return Solid(height, tinted(hue(rng, 0.76, 0.58, 0.37), shade), 0.05)


def brazil_nut(u, v, rng):
    """A dark rough wedge, one side straight and one bowed, with a ridge between two faces."""
    noise = Noise(rng)
    bow = rng.uniform(0.5, 0.68) * np.sqrt(np.clip(1 - u * u, 0, 1))
    across, ridge = v + 0.3, rng.uniform(0.25, 0.5)
    to_straight = across - 0.12 * u * u + 0.08
    to_bow = bow + 0.25 - across
    faces = np.minimum(to_straight / ridge, to_bow / (1 - ridge))
    rough = noise.fractal(u * 3, v * 9, 3)
    inside = np.minimum(faces, 3 * (1 - np.abs(u)))
    height = np.where(inside > 0, 0.55 * np.tanh(1.3 * inside) + 0.02 * rough, inside)
    shade = 1 + 0.2 * rough - 0.3 * spots(u, v, 5, noise)
    return Solid(height, tinted(hue(rng, 0.36, 0.26, 0.19), shade), 0.1)


def coconut(u, v, rng):
    """Large, brown, covered with fibres that run to the pole with its three eyes."""
    noise = Noise(rng)
    round_ = u * u + (v / rng.uniform(0.82, 1)) ** 2
    pole = rng.uniform(-0.1, 1.1)
    angle = np.arctan2(v, u + 1.5).astype(np.float32)
    hair = noise.fractal(u * 3, angle * rng.uniform(25, 40), 2)
    height = dome(round_ + 0.06 * hair, 0.8) + 0.035 * hair
    colour = tinted(hue(rng, 0.42, 0.28, 0.17), 1 + 0.4 * hair)
    for turn in (0, 2.1, 4.2):
        eye = blob(u - pole + 0.45 + 0.19 * np.cos(turn), v - 0.19 * np.sin(turn), 0.14)
        colour = mix(eye, np.float32([0.1, 0.06, 0.04]), colour)
        height = height - 0.08 * eye
    return Solid(height, colour, 0.03)


def hazelnut(u, v, rng):
    """Round with a blunt point, chestnut-brown, with a pale rough cap."""
    noise = Noise(rng)
    d2 = drop(u, v, rng.uniform(0.78, 0.95), 0.12)
    cap = np.clip((-u - rng.uniform(0.25, 0.6) + 0.08 * noise.at(u * 2, v * 4)) * 12, 0, 1)
    stripes = furrows(u, v / np.sqrt(np.clip(1.1 - u * u, 0.1, 2)), 7, noise)
    colour = tinted(hue(rng, 0.56, 0.33, 0.16), 1 + 0.13 * stripes)
    pale = tinted(hue(rng, 0.76, 0.62, 0.44), 1 + 0.2 * noise.at(u * 12, v * 12))
    return Solid(dome(d2, 0.8) - 0.015 * cap, mix(cap, pale, colour), rng.uniform(0.3, 0.8))


def macadamia(u, v, rng):
    """A smooth brown ball with one pale pore; often sawn open along a line."""
    noise = Noise(rng)
    d2 = u * u + (v / rng.uniform(0.93, 1)) ** 2
    colour = tinted(hue(rng, 0.47, 0.29, 0.16), 1 + 0.12 * noise.fractal(u * 2, v * 2, 3))
    pore = blob(u - rng.uniform(0.2, 0.8), v, 0.12)
    colour = mix(pore, np.float32([0.85, 0.75, 0.6]), colour)
    height = dome(d2, 0.85)
    if rng.random() < 0.6:
        cut = np.clip(1.5 - np.abs(v - rng.uniform(-0.4, 0.4) * (1 - u * u)) * 30, 0, 1)
        height, colour = height - 0.05 * cut, colour * (1 - 0.75 * cut[..., None])
    return Solid(height, colour, rng.uniform(0.4, 1))


def pecan(u, v, rng):
    """A long smooth brown ellipsoid, pointed, with dark streaks towards its tips."""
    noise = Noise(rng)
    width = rng.uniform(0.42, 0.56)
    pointed = (np.abs(u) ** 1.7 + (v / width) ** 2).astype(np.float32)
    streaks = np.clip(furrows(u, v, 6, noise) * 2 + 2.5 * (np.abs(u) - 0.6), 0, 1)
    colour = tinted(hue(rng, 0.58, 0.38, 0.22), 1 + 0.08 * noise.at(u * 2, v * 2))
    colour = mix(0.8 * streaks, np.float32([0.16, 0.09, 0.06]), colour)
    return Solid(dome(pointed, 0.5), colour, rng.uniform(0.2, 0.6))


def pine_nut(u, v, rng):
    """A small dark-brown drop, hard and dull."""
    noise = Noise(rng)
    d2 = drop(u, v, rng.uniform(0.42, 0.55), 0.3)
    shade = 1 + 0.25 * noise.fractal(u * 3, v * 3, 2)
    return Solid(dome(d2, 0.45), tinted(hue(rng, 0.4, 0.26, 0.17), shade), 0.15)


def pistachio(u, v, rng):
    """A cream shell that gapes along its front and shows the green and purple kernel."""
    noise = Noise(rng)
    d2 = drop(u, v, rng.uniform(0.55, 0.68), 0.12)
    shell = tinted(hue(rng, 0.84, 0.74, 0.56), 1 + 0.06 * furrows(u, v, 6, noise))
    middle = rng.uniform(-0.25, 0.25)
    gape = rng.uniform(0.08, 0.32) * np.sqrt(np.clip((u + 0.75) / 1.75, 0, 1))
    gap = np.clip((gape - np.abs(v - middle * (1 - u * u))) * 16, 0, 1) * (d2 < 1)
    skin = noise.at(u * 3, v * 5)
    kernel = mix(
        skin + 0.3, hue(rng, 0.5, 0.3, 0.33), tinted(hue(rng, 0.56, 0.6, 0.2), 1 + skin * 0.2)
    )
    height = dome(d2, 0.5) - 0.12 * gap
    return Solid(height, mix(gap, kernel, shell), rng.uniform(0.1, 0.4))


def walnut(u, v, rng):
    """Buff, nearly round, two halves with a raised seam, furrowed all over."""
    noise = Noise(rng)
    d2 = u * u + (v / rng.uniform(0.8, 0.95)) ** 2
    folds = wrinkles(u * 0.8, v, rng.uniform(2.5, 4), noise)
    bow = rng.uniform(-0.35, 0.35) * (1 - u * u)
    seam = np.clip(1 - np.abs(v - bow) * 14, 0, 1)
    height = dome(d2, 0.75) + 0.05 * folds + 0.06 * seam
    shade = 0.72 + 0.35 * folds + 0.12 * seam
    return Solid(height, tinted(hue(rng, 0.7, 0.53, 0.34), shade), 0.1)
