import numpy as np
import pytest
from PIL import Image

from nutclf.data.duplicates import groups_of_like, near_pairs, perceptual_hashes


@pytest.fixture(scope="module")
def pixels():
    """Four different drawings of blocks, then the first one brighter, smaller and recompressed."""
    blocks = np.random.default_rng(0).integers(0, 200, (4, 8, 8, 3), np.uint8)
    images = blocks.repeat(12, axis=1).repeat(12, axis=2)
    like = Image.fromarray(images[0] + np.uint8(30)).resize((70, 70)).resize((96, 96))
    return np.concatenate([images, np.asarray(like)[None]])


def test_a_brighter_and_rescaled_copy_is_near_and_nothing_else_is(pixels):
    pairs = near_pairs(perceptual_hashes(pixels))
    assert [(i, j) for i, j, _ in pairs] == [(0, 4)]


def test_bits_that_differ_are_counted():
    hashes = np.zeros((3, 256), bool)
    hashes[1, :5] = True
    hashes[2, 100:] = True
    assert near_pairs(hashes) == [(0, 1, 5)]


def test_equal_bytes_and_chains_of_near_images_make_one_group():
    hashes = np.zeros((5, 256), bool)
    hashes[1, :10] = True  # near 0
    hashes[2, :20] = True  # near 1, not near 0
    hashes[3, 128:] = True
    hashes[4, ::2] = True  # near nothing, but the bytes of 3
    groups = groups_of_like(["a", "b", "c", "d", "d"], hashes)
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] == groups[4] != groups[0]
