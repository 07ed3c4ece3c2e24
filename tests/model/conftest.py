"""Networks built once a session; nothing changes their weights."""

from collections.abc import Callable
from functools import cache

import keras
import numpy as np
import pytest

from nutclf.model import cuts
from nutclf.model.backbones import Backbone, load_backbone
from nutclf.model.prefix import Runner, pixels_to_cut


@pytest.fixture(scope="session")
def mobilenetv2() -> Backbone:
    return load_backbone("mobilenetv2", "random")


@pytest.fixture(scope="session")
def densenet169() -> Backbone:
    return load_backbone("densenet169", "random")


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Four images of random blocks of 16 pixels, uint8 [4, 96, 96, 3]."""
    blocks = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), np.uint8)
    return blocks.repeat(16, axis=1).repeat(16, axis=2)


@pytest.fixture(scope="session")
def trunk(lively) -> keras.Model:
    return cuts.trunk(lively.model)


@pytest.fixture(scope="session")
def prefix_of(lively, trunk) -> Callable[[int], Runner]:
    """The constant graph up to a cut; each takes a second to make."""
    return cache(lambda cut: pixels_to_cut(lively.spec, trunk, cut))
