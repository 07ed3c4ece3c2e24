"""The embedded data set: ten kinds of nut drawn from code, the same for everyone from a seed.

A nut is a dome over an outline, with a pattern that shades and shapes its surface and a second
colour on a part of it. One lamp lights it, on a table among leaves, crumbs and parts of other nuts.
"""

import cmath
import functools
import hashlib
import itertools
import math
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image
from scipy.ndimage import gaussian_filter, shift

from nutclf.config import SPLITS
from nutclf.errors import UserError

COUNTS = {"train": 60, "valid": 20, "test": 20}  # pictures per class
SIDE = 128  # of a picture, pixels


def ensure(parent: Path, seed: int = 0) -> Path:
    """The folder of the drawn data set, drawn now if it is not there yet (about 5 s).

    `<parent>/drawn-<seed>-<version>` is there whole or not at all, also when processes are killed
    or several ask at once. Raises `UserError` when it cannot be written.
    """
    # A version number raised by hand would be forgotten one day: this file is the version.
    source = Path(__file__).read_bytes() + repr(sorted(COUNTS.items())).encode()
    folder = parent / f"drawn-{seed}-{hashlib.sha256(source).hexdigest()[:10]}"
    if folder.is_dir():
        return folder
    unfinished = parent / f".{folder.name}.unfinished"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f".{folder.name}.lock"):
            if not folder.is_dir():  # another process may have drawn it while this one waited
                shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process
                _draw_all(unfinished, seed)
                unfinished.rename(folder)
    except OSError as error:
        raise UserError(
            f"The drawn images cannot be written to {parent}: {error.strerror or error}. "
            f"Free some space there or make it writable."
        ) from error
    return folder


def _draw_all(folder: Path, seed: int) -> None:
    def save(split: str, label: int) -> None:
        target = folder / split / CLASSES[label]
        target.mkdir(parents=True)
        for index in range(COUNTS[split]):
            picture = Image.fromarray(draw(label, split, index, seed))
            picture.save(target / f"{index:03}.png", compress_level=1)

    with ThreadPoolExecutor(2) as pool:  # more only wait for each other
        list(pool.map(save, *zip(*itertools.product(COUNTS, range(len(KINDS))), strict=True)))


@dataclass(frozen=True)
class Kind:
    """How the nuts of one kind look; lengths are in halves of a nut's length.

    `pattern` and `marked` take coordinates u along and v across a nut, smooth noise, and a number
    r, 0..1, that differs from nut to nut.
    """

    most: int  # nuts in a picture, 1 to this many
    size: float  # half a nut's length, as a share of the picture's side
    width: float  # half its width
    taper: float  # how much narrower it gets towards u = 1, as a share
    height: float  # of the dome
    gloss: float  # strength of the highlight, 0..1
    colour: tuple[float, float, float]  # RGB, 0..1
    pattern: Callable  # above 0 lightens and raises the surface, below 0 darkens and carves it
    second: tuple[float, float, float] = (0, 0, 0)  # the colour of what is marked
    marked: Callable = lambda u, v, noise, r: 0 * u  # 1 and above is marked, 0 and below is not
    curled: bool = False  # bent round like a kidney


def _line(distance: np.ndarray, width: float) -> np.ndarray:
    """1 where `distance` is 0, falling to 0 at `width` on either side."""
    return np.clip(1 - np.abs(distance) / width, 0, 1)


# fmt: off
KINDS = {
    # A cinnamon drop with fine furrows from its point; some have lost part of the skin.
    "almonds": Kind(
        5, 0.32, 0.56, 0.35, 0.38, 0.1, (0.6, 0.35, 0.19),
        lambda u, v, noise, r: 0.3 * noise(1.2 * u, 9 * v / (1.05 - 0.36 * u)),
        (0.9, 0.82, 0.65), lambda u, v, noise, r: 4 * noise(2 * u, 2 * v) + 6 * r - 6,
    ),
    # Dark and rough with a ridge, from whole to mostly peeled down to ivory.
    "brazil nuts": Kind(
        4, 0.34, 0.45, 0.1, 0.4, 0.2, (0.38, 0.26, 0.18),
        lambda u, v, noise, r: 0.25 * noise(3 * u, 9 * v) + 0.6 * _line(v - 0.1, 0.3) - 0.2,
        (0.9, 0.8, 0.62), lambda u, v, noise, r: 2 * noise(1.6 * u, 4 * v) + 3 * r - 1.5,
    ),
    # A smooth pale kidney.
    "cashews": Kind(
        5, 0.31, 0.36, 0.2, 0.42, 0.3, (0.88, 0.76, 0.56),
        lambda u, v, noise, r: 0.05 * noise(3 * u, 3 * v), curled=True,
    ),
    # A large ball with fibres that run to a pole with three eyes.
    "coconut": Kind(
        1, 0.4, 0.9, 0, 0.8, 0.03, (0.42, 0.28, 0.17),
        lambda u, v, noise, r: 0.4 * noise(3 * u, 30 * np.arctan2(v, u + 1.5)),
        (0.1, 0.06, 0.04), lambda u, v, noise, r: 3 - 20 * np.minimum(
            np.hypot(u - r + 0.1, np.abs(v) - 0.17), np.hypot(u - r + 0.4, v)),
    ),
    # A glossy chestnut-brown ball with a pale rough cap.
    "hazelnuts": Kind(
        5, 0.29, 0.87, 0.12, 0.8, 0.6, (0.56, 0.33, 0.16),
        lambda u, v, noise, r: 0.13 * noise(1.2 * u, 7 * v),
        (0.76, 0.62, 0.44), lambda u, v, noise, r: noise(2 * u, 4 * v) - 12 * u - 5 * r - 3,
    ),
    # A smooth brown shell, opened to any extent on a cream ball.
    "macadamia": Kind(
        5, 0.29, 0.95, 0, 0.8, 0.5, (0.47, 0.29, 0.16),
        lambda u, v, noise, r: 0.1 * noise(2 * u, 2 * v),
        (0.92, 0.84, 0.66), lambda u, v, noise, r: 20 * (v - 2.6 * r + 1.3 - 0.3 * u * u),
    ),
    # Half a kernel, amber to dark: a deep furrow down the middle and one on either side.
    "pecans": Kind(
        4, 0.34, 0.5, 0, 0.42, 0.3, (0.58, 0.34, 0.17),
        lambda u, v, noise, r: 0.15 * noise(7 * u, 2 * v) - _line(v, 0.1)
        - 0.6 * _line(np.abs(v + 0.05 * noise(2 * u, v)) - 0.27, 0.08),
    ),
    # A small slim ivory drop with a brownish tip.
    "pine nuts": Kind(
        9, 0.24, 0.39, 0.32, 0.38, 0.4, (0.92, 0.82, 0.6),
        lambda u, v, noise, r: 0.03 * noise(2 * u, 2 * v),
        (0.6, 0.42, 0.24), lambda u, v, noise, r: 3 * r * (u - 0.6),
    ),
    # A cream shell that gapes along its front and shows the green kernel.
    "pistachios": Kind(
        5, 0.3, 0.62, 0.12, 0.5, 0.25, (0.84, 0.74, 0.56),
        lambda u, v, noise, r: 0.06 * noise(1.2 * u, 6 * v),
        (0.5, 0.52, 0.2), lambda u, v, noise, r: (1 + 5 * r) * (u + 0.7) - 16 * np.abs(v),
    ),
    # Nearly round, folded like a brain, with a raised seam.
    "walnuts": Kind(
        3, 0.33, 0.88, 0, 0.65, 0.15, (0.66, 0.49, 0.31),
        lambda u, v, noise, r: 0.8 * _line(noise((2 + r) * u, (2 + r) * v), 0.5) - 0.4
        + 0.3 * _line(v - (0.6 * r - 0.3) * (1 - u * u), 0.1),
    ),
}
LEAF = Kind(
    2, 0.2, 0.4, 0, 0.05, 0.2, (0.25, 0.42, 0.15),
    lambda u, v, noise, r: 0.3 * np.abs(np.sin(9 * (u - np.abs(v)))) - 0.3 * _line(v, 0.06),
    (0.5, 0.34, 0.18), lambda u, v, noise, r: r + 0 * u,
)
CRUMB = Kind(
    3, 0.035, 0.7, 0, 0.3, 0.1, (0.9, 0.75, 0.5), lambda u, v, noise, r: 0.3 * noise(u, v),
    (0.3, 0.2, 0.15), lambda u, v, noise, r: r + 0 * u,
)
# fmt: on
CLASSES = tuple(KINDS)  # in the order of the labels: sorted, as folders are


def draw(label: int, split: str, index: int, seed: int) -> np.ndarray:
    """Picture `index` of a class and split, RGB, uint8 [SIDE, SIDE, 3]: a pure function."""
    rng = np.random.default_rng([seed, SPLITS.index(split), label, index])
    around, above = rng.uniform(0, 7), math.radians(rng.uniform(25, 70))
    lamp = math.cos(above) * math.cos(around), math.cos(above) * math.sin(around), math.sin(above)
    canvas, ambient = _table(rng), rng.uniform(0.25, 0.6)
    place = functools.partial(_place, canvas, rng, lamp, ambient)
    for kind in (LEAF, CRUMB):
        for middle in rng.random((rng.integers(kind.most + 1), 2)):
            place(kind, kind.size * rng.uniform(0.4, 1.4), *middle)
    for around in rng.uniform(0, 7, rng.integers(4)):  # nuts of any kind show at the border
        kind = KINDS[CLASSES[rng.integers(len(CLASSES))]]
        x, y = 0.5 + 0.52 * math.cos(around), 0.5 + 0.52 * math.sin(around)
        place(kind, kind.size * rng.uniform(0.5, 0.8), x, y)
    kind = KINDS[CLASSES[label]]
    count = rng.integers(1, kind.most + 1)
    size, spread = kind.size * rng.uniform(0.8, 1.2) / count**0.35, 0.05 if count == 1 else 0.15
    for middle in rng.normal(0.5, spread, (count, 2)):
        place(kind, size * rng.uniform(0.85, 1.1), *middle)
    return _photograph(canvas, rng)


def _place(canvas, rng, lamp, ambient, kind, size, x, y):
    """Draws one nut and its shadow onto `canvas`, in place, turned and tilted at random.

    `size` is half its length and (x, y) its middle, as shares of the picture's side; `lamp` is a
    unit vector, z towards the viewer; `ambient` the share of light from everywhere.
    """
    size, x, y = (float(SIDE * share) for share in (size, x, y))  # NumPy's would widen float32
    reach = 1.35 * size + 6
    left, top = max(0, int(x - reach)), max(0, int(y - reach))
    patch = canvas[top : max(0, int(y + reach)), left : max(0, int(x + reach))]
    if min(patch.shape[:2]) < 3:  # out of sight; a gradient needs a few pixels
        return
    rows, columns = np.indices(patch.shape[:2], np.float32)
    at = (columns + (left - x) + 1j * (rows + (top - y))) / size * cmath.exp(7j * rng.random())
    at = (at.real / rng.uniform(0.75, 1) + 1j * at.imag) * cmath.exp(7j * rng.random())
    height, colour = _surface(kind, at.real, at.imag, rng)
    height = np.clip(height, -0.5 / size, None) * size
    lx, ly, lz = lamp
    fall = max(float(height.max()), 0) / 2 / lz
    shadow = shift(np.float32(height > 0), (round(-ly * fall), round(-lx * fall)), order=0)
    shadow = gaussian_filter(shadow, rng.uniform(1, 4), truncate=2)
    patch *= 1 - 0.65 * (1 - ambient) * shadow[..., None]
    # Lambert's law, and Blinn's highlight for a viewer straight above.
    down, right = np.gradient(height)
    steep = np.sqrt(right**2 + down**2 + 1)
    facing = np.clip((lz - lx * right - ly * down) / steep, 0, 1)
    halfway = np.clip((lz + 1 - lx * right - ly * down) / steep / math.sqrt(2 + 2 * lz), 0, 1)
    for _ in range(5):  # to the power of 32
        halfway *= halfway
    brightness, shine = ambient + (1.25 - ambient) * facing, 0.6 * kind.gloss * halfway
    lit = colour * brightness[..., None] + shine[..., None]
    patch += np.clip(height + 0.5, 0, 1)[..., None] * (lit - patch)


def _surface(kind, u, v, rng):
    """Height [h, w], above 0 inside the outline, and colour [h, w, 3] of one nut of a kind."""
    noise, r = _noise(rng), np.float32(rng.random())
    if kind.curled:  # u becomes the way along an arc, v the way from it
        radius = rng.uniform(0.5, 0.75)
        v = v + 0.7 * radius
        u, v = radius * np.arctan2(u, v) / 1.05, np.hypot(u, v) - radius
    width = kind.width * rng.uniform(0.87, 1.13) * (1.05 - kind.taper * u)
    d2 = np.clip(u * u + (v / width) ** 2 + 0.06 * noise(3 * u, 3 * v), 0, None)
    pattern = kind.pattern(u, v, noise, r)
    height = kind.height * np.sqrt(np.clip(1 - d2, 0, 1)) - np.clip(np.sqrt(d2) - 1, 0, 1)
    colours = rng.normal((kind.colour, kind.second), 0.035) + rng.normal(0, 0.05)  # kinds overlap
    first, second = np.float32(colours).clip(0.03, 1)
    marked = np.clip(kind.marked(u, v, noise, r), 0, 1)[..., None]
    colour = (first + marked * (second - first)) * np.clip(1 + pattern, 0.05, 1.6)[..., None]
    return height + 0.15 * min(kind.height, 0.7) * pattern * (d2 < 1), colour


def _table(rng):
    """An empty table of paper, cloth or wood, float32 [SIDE, SIDE, 3]: the canvas."""
    y, x = np.indices((SIDE, SIDE), np.float32) / SIDE
    at, noise, material = (x + 1j * y) * cmath.exp(7j * rng.random()), _noise(rng), rng.integers(3)
    u, v = at.real, at.imag
    near, far = rng.uniform(0.1, 0.95, (2, 1)) + rng.normal(0, 0.07, (2, 3))
    pattern = 0 * u
    if material == 1:
        weave = np.sin(u * rng.uniform(50, 140)) * np.sin(v * rng.uniform(50, 140))
        pattern, far = rng.uniform(0.05, 0.2) * weave + 0.12 * noise(3 * u, 3 * v), near
    elif material == 2:
        rings = np.sin(rng.uniform(10, 30) * v + 3 * noise(0.8 * u, 4 * v))
        pattern = 0.12 * rings + 0.08 * noise(2 * u, 40 * v)
        near = far = rng.uniform(0.3, 0.9) * rng.uniform((1, 0.65, 0.4), (1, 0.9, 0.75))
    near, far = np.float32([near, far]).clip(0.03, 1)
    colour = near + np.clip(0.3 + 0.7 * u, 0, 1)[..., None] * (far - near)
    return colour * (1 + pattern[..., None])


def _photograph(canvas, rng):
    """The picture, uint8, of a lit canvas: white balance, exposure, focus and sensor noise."""
    warmth, tint = rng.normal(0, 0.07), rng.normal(0, 0.03)
    gains = np.float32([1 + warmth, 1 + tint, 1 - warmth]) * np.float32(rng.uniform(0.8, 1.2))
    exposed = np.clip(canvas * gains, 0, 1) ** np.float32(rng.uniform(0.75, 1.3))
    exposed = 255 * gaussian_filter(exposed, max(0.3, rng.normal(0.4, 0.5)), axes=(0, 1))
    grain = rng.uniform(1, 8) * rng.standard_normal(exposed.shape, np.float32)
    return np.clip(exposed + grain, 0, 255).astype(np.uint8)


def _noise(rng):
    """A smooth random function of two coordinates, about -1..1, its features about 1 apart."""
    dx, dy = rng.uniform(0, 16), rng.uniform(0, 16)
    return lambda x, y: _texture()[np.int32((y + dy) * 64) & 1023, np.int32((x + dx) * 64) & 1023]


@functools.cache
def _texture():
    """Two octaves of noise [1024, 1024]; repeats after 16 cells of 64 samples."""
    white = np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
    coarse, fine = (gaussian_filter(white, sigma, mode="wrap") for sigma in (32, 16))
    return coarse / (2 * coarse.std()) + fine / (4 * fine.std())
