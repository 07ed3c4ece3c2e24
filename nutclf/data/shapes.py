"""Drawn things that are no nuts, for pretraining: every outline with every texture and colour.

They lie under the same light, on the same tables and among the same clutter as `data.drawn`'s nuts,
so that what a network learns of them carries over, and no picture of a nut is ever shown.
"""

from dataclasses import dataclass

import numpy as np

from nutclf.data.drawing.backdrop import backdrop, plain, scatter
from nutclf.data.drawing.camera import develop
from nutclf.data.drawing.noise import Noise
from nutclf.data.drawing.outlines import OUTLINES
from nutclf.data.drawing.scene import CANVAS, Solid, place, random_light, random_pose
from nutclf.data.drawing.textures import TEXTURES

HUES = (
    ("white", (0.93, 0.92, 0.9)),
    ("cream", (0.9, 0.8, 0.58)),
    ("tan", (0.72, 0.54, 0.34)),
    ("brown", (0.48, 0.3, 0.17)),
    ("black", (0.16, 0.13, 0.12)),
    ("red", (0.72, 0.25, 0.2)),
    ("green", (0.45, 0.58, 0.24)),
    ("blue", (0.3, 0.42, 0.68)),
)
N_LABELS = (len(OUTLINES), len(TEXTURES), len(HUES))
"""Outlines, textures and hues: a shape carries one label of each."""


@dataclass(frozen=True)
class _Look:
    """What the shapes of one picture have in common."""

    outline: int
    texture: int
    colour: np.ndarray
    thickness: float
    profile: float
    gloss: float

    def solid(self, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> Solid:
        """An artist (`scene.Artist`)."""
        noise = Noise(rng)
        distance = OUTLINES[self.outline](u, v, rng)
        relief, shade = TEXTURES[self.texture](u, v, noise, rng)
        inside = np.clip(1 - distance, 0, 1)
        body = (1 - (1 - inside) ** 2) ** self.profile
        height = self.thickness * body + (distance < 1) * relief - np.clip(distance - 1, 0, 1)
        colour = np.clip(shade, 0.05, 1.6)[..., None] * self.colour
        return Solid(height.astype(np.float32), colour.astype(np.float32), self.gloss)


def draw_shape(index: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One picture of one to four like shapes, a pure function of its arguments.

    Pictures range evenly from easy (one large shape on plain paper) to as hard as the nuts. On hard
    ones alone a new network finds nothing to hold on to: of 15 outlines it told 0.11 apart after
    600 steps of 64, and of easy ones 0.29 after 500 steps of 32.

    Args:
      index: 0 and up.
      seed: 0 and up.

    Returns:
      RGB, uint8 [96, 96, 3], and its labels, int64 [3]: outline, texture and hue, each drawn evenly
      and apart from the others.
    """
    rng = np.random.default_rng([seed, index])
    labels, ease = rng.integers(N_LABELS), rng.random()
    light = random_light(rng)
    canvas = plain(rng) if rng.random() < ease else backdrop(rng)
    if rng.random() > ease:
        scatter(canvas, light, rng)
    count = 1 if rng.random() < ease else rng.integers(1, 5)
    size = CANVAS * (0.34 + 0.2 * ease) * rng.uniform(0.7, 1.2) / count**0.35
    spread = CANVAS * (0.03 if count == 1 else 0.2)
    look = _look(labels, rng)
    for x, y in CANVAS / 2 + rng.normal(0, spread, (count, 2)):
        place(canvas, look.solid, random_pose(rng, x, y, size), light, rng)
    return develop(canvas, rng), labels


def _look(labels: np.ndarray, rng: np.random.Generator) -> _Look:
    outline, texture, hue = labels
    colour = HUES[hue][1] + rng.normal(0, 0.03, 3) + rng.normal(0, 0.03)
    return _Look(
        outline,
        texture,
        colour.clip(0.03, 1).astype(np.float32),
        thickness=rng.uniform(0.15, 0.7),
        profile=rng.uniform(0.3, 1),
        gloss=rng.uniform(0, 0.8),
    )
