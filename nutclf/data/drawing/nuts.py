"""Pictures of ten kinds of nut: which artists draw a kind, how many nuts, how large."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from nutclf.config import SPLITS
from nutclf.data.drawing import kernels, shells
from nutclf.data.drawing.backdrop import backdrop, scatter
from nutclf.data.drawing.camera import develop
from nutclf.data.drawing.scene import CANVAS, Artist, Light, place, random_light, random_pose


@dataclass(frozen=True)
class Kind:
    """One kind of nut.

    Attributes:
      artists: one draws all the nuts of its kind in a picture.
      odds: of each artist.
      most: nuts in a picture, 1 to this many.
      size: half a nut's length for a picture with one, as a share of the picture's side.
    """

    artists: tuple[Artist, ...]
    odds: tuple[float, ...]
    most: int
    size: float


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "almonds": Kind((kernels.almond, shells.almond), (0.75, 0.25), 5, 0.32),
        "brazil nuts": Kind((kernels.brazil_nut, shells.brazil_nut), (0.5, 0.5), 4, 0.34),
        "cashews": Kind((kernels.cashew,), (1.0,), 5, 0.31),
        "coconut": Kind((kernels.coconut, shells.coconut), (0.4, 0.6), 1, 0.4),
        "hazelnuts": Kind((kernels.hazelnut, shells.hazelnut), (0.35, 0.65), 5, 0.29),
        "macadamia": Kind((kernels.macadamia, shells.macadamia), (0.55, 0.45), 5, 0.29),
        "pecans": Kind((kernels.pecan, shells.pecan), (0.6, 0.4), 4, 0.34),
        "pine nuts": Kind((kernels.pine_nut, shells.pine_nut), (0.85, 0.15), 9, 0.24),
        "pistachios": Kind((kernels.pistachio, shells.pistachio), (0.3, 0.7), 5, 0.3),
        "walnuts": Kind((kernels.walnut, shells.walnut), (0.45, 0.55), 3, 0.33),
    }
)
CLASSES = tuple(KINDS)
"""In the order of the labels: sorted, as folders are."""


def draw(label: int, split: str, index: int, seed: int) -> np.ndarray:
    """One picture, a pure function of its arguments; no two of them share random numbers.

    Args:
      label: position in `CLASSES`.
      split: one of `SPLITS`.
      index: 0 and up, which picture of this class and split.
      seed: of the data set, 0 and up.

    Returns:
      RGB, uint8 [96, 96, 3].
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), label, index])
    light, canvas = random_light(rng), backdrop(rng)
    scatter(canvas, light, rng)
    if rng.random() < 0.4:
        _intrude(canvas, light, rng)
    _lay_out(canvas, KINDS[CLASSES[label]], light, rng)
    return develop(canvas, rng)


def _lay_out(canvas: np.ndarray, kind: Kind, light: Light, rng: np.random.Generator) -> None:
    """Places the nuts that the picture is named after, spread about its middle."""
    count = rng.integers(1, kind.most + 1)
    artist = kind.artists[rng.choice(len(kind.artists), p=kind.odds)]
    size = CANVAS * kind.size * rng.uniform(0.65, 1.2) / count**0.35
    spread = CANVAS * (0.06 if count == 1 else 0.2)
    for x, y in CANVAS / 2 + rng.normal(0, spread, (count, 2)):
        place(canvas, artist, random_pose(rng, x, y, size * rng.uniform(0.85, 1.1)), light, rng)


def _intrude(canvas: np.ndarray, light: Light, rng: np.random.Generator) -> None:
    """Lets one nut of any kind show at the border: what a picture holds is not all it is of."""
    kind = KINDS[CLASSES[rng.integers(len(CLASSES))]]
    around = rng.uniform(0, 2 * np.pi)
    x, y = CANVAS / 2 * (1 + 1.1 * np.array([np.cos(around), np.sin(around)]))
    size = CANVAS * kind.size * rng.uniform(0.4, 0.8)
    place(canvas, kind.artists[0], random_pose(rng, x, y, size), light, rng)
