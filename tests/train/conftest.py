"""A network that tells images apart, and a few images of it."""

import hashlib

import numpy as np
import pytest

from nutclf.config import Augmentation
from nutclf.data.folder import Split
from nutclf.train.features import FrozenPart

DEEPEST = 20  # layers of MobileNetV2; what enters them is the base of all features


def _draw_images(n: int, side: int, seed: int, n_classes: int = 4) -> Split:
    """Images of random blocks, uint8; class after class."""
    blocks = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), np.uint8)
    pixels = blocks.repeat(side // 8, axis=1).repeat(side // 8, axis=2)
    keys = [hashlib.sha256(one.tobytes()).hexdigest() for one in pixels]
    return Split(pixels, np.arange(n) % n_classes, [f"{i}.png" for i in range(n)], keys)


@pytest.fixture(scope="session")
def draw_images():
    """`draw_images(n, side, seed)`."""
    return _draw_images


@pytest.fixture(scope="session")
def images() -> Split:
    """20 images, more than one batch of the prefix, of 4 classes, at 96 pixels."""
    return _draw_images(20, 96, 0)


@pytest.fixture(scope="session")
def few_images() -> Split:
    """8 others."""
    return _draw_images(8, 96, 1)


@pytest.fixture(scope="session")
def part(lively) -> FrozenPart:
    return FrozenPart(lively, Augmentation(), seed=0, deepest=DEEPEST)
