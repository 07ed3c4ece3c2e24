import numpy as np
from PIL import Image

from nutclf.data.likeness import groups_of_like, near_pairs, perceptual_hashes


def hashes_that_differ(*changed):
    """Hashes of one pattern, each with the bits of a slice turned over."""
    hashes = np.tile(np.arange(256) % 2 == 0, (len(changed), 1))
    for row, bits in enumerate(changed):
        hashes[row, bits] ^= True
    return hashes


def test_a_brighter_and_rescaled_copy_is_near_and_nothing_else_is():
    blocks = np.random.default_rng(0).integers(0, 200, (4, 8, 8, 3), np.uint8)
    images = blocks.repeat(12, axis=1).repeat(12, axis=2)
    like = Image.fromarray(images[0] + np.uint8(30)).resize((70, 70)).resize((96, 96))
    pairs = near_pairs(perceptual_hashes(np.concatenate([images, np.asarray(like)[None]])))
    assert [(i, j) for i, j, _ in pairs] == [(0, 4)]


def test_bits_that_differ_are_counted():
    hashes = hashes_that_differ(slice(0, 0), slice(0, 5), slice(100, 256))
    assert near_pairs(hashes) == [(0, 1, 5)]


def test_plain_images_are_near_none():
    images = np.full((3, 32, 32, 3), 200, np.uint8)
    assert near_pairs(perceptual_hashes(images)) == []


def test_more_hashes_than_are_compared_at_once():
    hashes = np.random.default_rng(0).random((2600, 256)) < 0.5
    for first, second in ((0, 2599), (1023, 1024), (2100, 2101)):
        hashes[second] = hashes[first]
    assert near_pairs(hashes) == [(0, 2599, 0), (1023, 1024, 0), (2100, 2101, 0)]


def test_equal_bytes_and_chains_of_near_images_make_one_group_named_by_its_first_key():
    # The second is near the first, the third near the second alone; the last is near nothing, but
    # has the bytes of the fourth.
    bits = slice(0, 0), slice(0, 10), slice(0, 20), slice(128, 256), slice(64, 200)
    # The numbers decide the folds: a study that goes on must get those that it began with.
    keys = ["b", "a", "d", "c", "c"]
    assert groups_of_like(keys, hashes_that_differ(*bits)).tolist() == [1, 1, 1, 2, 2]
