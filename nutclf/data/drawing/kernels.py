"""Nuts out of their shells, one artist a kind (`scene.Artist`)."""

import numpy as np

from nutclf.data.drawing.noise import Noise
from nutclf.data.drawing.scene import Solid
from nutclf.data.drawing.surface import blob, dome, drop, furrows, hue, mix, tinted, wrinkles


def almond(u, v, rng):
    """A flat drop in a cinnamon skin with fine furrows from the point; some are blanched."""
    noise = Noise(rng)
    d2 = drop(u, v, rng.uniform(0.48, 0.62), 0.36)
    spread = v / (1.05 - 0.36 * u)
    lines = furrows(u, spread, rng.uniform(7, 11), noise)
    blanched = rng.random() < 0.2
    colour = hue(rng, 0.9, 0.82, 0.65) if blanched else hue(rng, 0.6, 0.35, 0.19)
    depth = 0.05 if blanched else 0.28
    return Solid(dome(d2, 0.35) + 0.1 * depth * lines, tinted(colour, 1 + depth * lines), 0.1)


def brazil_nut(u, v, rng):
    """A long ivory wedge with flakes of brown skin and a blunt ridge."""
    noise = Noise(rng)
    width = rng.uniform(0.42, 0.52)
    bent = v - rng.uniform(0.1, 0.25) * (u * u - 0.4)
    d2 = (u * u + (bent / width) ** 2).astype(np.float32)
    ridge = np.clip(1 - np.abs(bent - 0.1) * 4, 0, 1)
    skin = np.clip(2.2 * noise.fractal(u * 1.6, v * 4, 2) - rng.uniform(-0.4, 0.8), 0, 1)
    colour = mix(
        0.85 * skin, hue(rng, 0.42, 0.27, 0.16), tinted(hue(rng, 0.9, 0.8, 0.62), 1 + 0 * u)
    )
    return Solid(dome(d2, 0.4) + 0.1 * ridge * (d2 < 1), colour, rng.uniform(0.1, 0.5))


def cashew(u, v, rng):
    """A smooth pale kidney, raw to roasted, thicker at one end."""
    noise = Noise(rng)
    bend, thick = rng.uniform(0.75, 1.15), rng.uniform(0.3, 0.38)
    middle, radius = 0.62 - thick * 0.5, 0.66
    angle = np.arctan2(u, v + middle)
    along = np.clip(angle, -bend, bend)
    swell = thick * (1 + 0.22 * along / bend)
    away = np.hypot(u - radius * np.sin(along), v + middle - radius * np.cos(along))
    height = dome(((away / swell) ** 2).astype(np.float32), 0.42)
    roasted = rng.uniform(0, 1) * np.float32([0.1, 0.2, 0.28])
    colour = hue(rng, 0.92, 0.83, 0.66) - roasted
    line = np.clip(1 - np.abs(away / swell) * 9, 0, 1) * rng.uniform(0, 0.15)
    return Solid(height - 0.1 * line, tinted(colour, 1 + 0.05 * noise.at(u * 3, v * 3) - line), 0.3)


def coconut(u, v, rng):
    """Half a coconut: white flesh in a brown rim, hollow in the middle."""
    noise = Noise(rng)
    d = np.sqrt(u * u + (v / rng.uniform(0.85, 1)) ** 2)
    hair = noise.at(u * 9, v * 9)
    rim, flesh = rng.uniform(0.86, 0.92), rng.uniform(0.55, 0.7)
    bowl = 0.45 * np.sqrt(np.clip(1 - (d / flesh) ** 2, 0, 1))
    height = np.where(d < 1 + 0.03 * hair, 0.5 - bowl, 1 - d)
    white = tinted(hue(rng, 0.94, 0.92, 0.86), 1 + 0.04 * noise.at(u * 5, v * 5))
    brown = tinted(hue(rng, 0.38, 0.25, 0.15), 1 + 0.4 * hair)
    return Solid(height, mix((d - rim) * 25, brown, white), 0.25)


def hazelnut(u, v, rng):
    """A round kernel, its brown skin wrinkled and flaking off the cream below."""
    noise = Noise(rng)
    d2 = drop(u, v, rng.uniform(0.8, 0.95), 0.1)
    lines = furrows(u, v, 5, noise)
    bare = np.clip(2.5 * noise.at(u * 1.5 + 5, v * 1.5) - rng.uniform(-0.3, 1.2), 0, 1)
    colour = tinted(hue(rng, 0.53, 0.32, 0.18), 1 + 0.25 * lines)
    colour = mix(bare, hue(rng, 0.9, 0.8, 0.6), colour)
    return Solid(dome(d2, 0.75) + 0.03 * lines * (1 - bare), colour, 0.15)


def macadamia(u, v, rng):
    """A smooth cream ball, a little flattened, with a faint darker girdle."""
    noise = Noise(rng)
    d2 = u * u + (v / rng.uniform(0.9, 1)) ** 2
    girdle = blob(u + rng.uniform(0.2, 0.7), 0 * v, 0.25) * rng.uniform(0, 0.15)
    shade = 1 + 0.04 * noise.fractal(u * 2, v * 2, 2) - girdle
    return Solid(dome(d2, 0.75), tinted(hue(rng, 0.92, 0.84, 0.66), shade), rng.uniform(0.2, 0.6))


def pecan(u, v, rng):
    """Half a kernel: amber to dark, a deep furrow down the middle and two beside it."""
    noise = Noise(rng)
    width = rng.uniform(0.42, 0.55)
    wavy = v + 0.05 * noise.at(u * 2.5, v * 0.5)
    d2 = u * u + (v / width) ** 2 + 0.1 * noise.at(u * 3, v * 3)
    groove = np.clip(1 - np.abs(wavy) * 11, 0, 1)
    beside = np.clip(1 - np.abs(np.abs(wavy) / width - 0.52) * 7, 0, 1) * np.clip(1.2 - u * u, 0, 1)
    cross = noise.at(u * 7, v * 2)
    height = dome(np.clip(d2, 0, None), 0.42) - 0.16 * groove - 0.09 * beside + 0.02 * cross
    shade = 1 - 0.5 * groove - 0.35 * beside + 0.15 * cross
    return Solid(height, tinted(hue(rng, 0.58, 0.34, 0.17), shade), rng.uniform(0.1, 0.5))


def pine_nut(u, v, rng):
    """A small ivory drop, slim, with a brownish tip."""
    d2 = drop(u, v, rng.uniform(0.33, 0.45), 0.32)
    tip = np.clip(3 * (u - 0.65), 0, 1) * rng.uniform(0.2, 0.8)
    colour = tinted(hue(rng, 0.92, 0.82, 0.6), 1 + 0 * u)
    return Solid(dome(d2, 0.38), mix(tip, hue(rng, 0.6, 0.42, 0.24), colour), 0.4)


def pistachio(u, v, rng):
    """A green kernel with patches of purple skin."""
    noise = Noise(rng)
    d2 = drop(u, v, rng.uniform(0.45, 0.58), 0.15)
    skin = np.clip(2 * noise.fractal(u * 1.5, v * 3, 2) + rng.uniform(-0.4, 0.9), 0, 1)
    green = tinted(hue(rng, 0.58, 0.62, 0.24), 1 + 0.15 * noise.at(u * 5, v * 5))
    colour = mix(0.85 * skin, hue(rng, 0.47, 0.28, 0.27), green)
    return Solid(dome(d2, 0.42) + 0.03 * skin, colour, 0.1)


def walnut(u, v, rng):
    """Half a kernel: two lobes, folded like a brain, tan with darker furrows."""
    noise = Noise(rng)
    edge = 0.9 + 0.12 * noise.at(u * 2.5, v * 2.5) - 0.3 * np.exp(-30 * v * v) * np.abs(u)
    d2 = (u / edge) ** 2 + (v / (edge * rng.uniform(0.8, 0.95))) ** 2
    folds = wrinkles(u, v, rng.uniform(2, 3), noise)
    cleft = np.clip(1 - np.abs(v + 0.08 * noise.at(u * 2, v)) * 9, 0, 1)
    height = dome(d2, 0.5) + 0.12 * folds - 0.18 * cleft
    shade = 0.6 + 0.5 * folds - 0.3 * cleft
    return Solid(height, tinted(hue(rng, 0.76, 0.56, 0.34), shade), 0.2)
