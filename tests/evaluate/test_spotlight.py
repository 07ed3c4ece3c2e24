"""The map over a picture: seen on dark and on bright ones, nothing where there is nothing."""

import numpy as np
import pytest

from nutclf.evaluate.mistakes import spotlight


def plain(value):
    return np.full((8, 8, 3), value, np.uint8)


def test_without_heat_the_picture_is_grey():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    found = spotlight(pixels, np.zeros((2, 2)))
    luma = np.rint(pixels @ np.array([0.299, 0.587, 0.114]))
    np.testing.assert_array_equal(found, np.repeat(luma[..., None], 3, axis=2))


@pytest.mark.parametrize("brightness", [0, 128, 255])
def test_heat_is_a_colour_on_any_brightness(brightness):
    found = spotlight(plain(brightness), np.ones((2, 2))).astype(int)
    red, _, blue = found[4, 4]
    assert red - blue > 100


def test_the_heat_lies_where_the_map_says():
    found = spotlight(plain(128), np.array([[1.0, 0], [0, 0]])).astype(int)
    warmth = found[..., 0] - found[..., 2]
    assert warmth[0, 0] > 100
    assert abs(warmth[7, 7]) < 5, "the enlargement is smooth"
    assert abs(warmth[0, 7]) < 5
