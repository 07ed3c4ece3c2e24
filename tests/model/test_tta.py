"""Test-time views, against crops and borders made by hand."""

import numpy as np
import pytest
from PIL import Image

from nutclf.config import View
from nutclf.errors import UserError
from nutclf.model.tta import look

SIDE = 64


@pytest.fixture(scope="module")
def squares() -> np.ndarray:
    """Three smooth pictures, float32."""
    small = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    large = [Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for one in small]
    return np.stack([np.asarray(one, np.float32) for one in large])


def seen(squares, *view):
    return np.asarray(look(squares, View(*view)))


def test_the_whole_is_untouched_and_a_mirror_its_mirror(squares):
    np.testing.assert_array_equal(seen(squares), squares)
    np.testing.assert_array_equal(seen(squares, 1.0, True), squares[:, :, ::-1])


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_is_the_enlarged_centre(squares, mirrored):
    found = seen(squares, 0.75, mirrored)
    for square, one in zip(squares, found, strict=True):
        centre = Image.fromarray(square.astype(np.uint8)).crop((8, 8, 56, 56))
        large = np.asarray(centre.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
        np.testing.assert_allclose(one, large[:, ::-1] if mirrored else large, atol=1.01)


def test_padding_keeps_the_picture_small_on_the_colour_of_its_border(squares):
    found = seen(squares, 2.0)
    edges = [squares[:, 0], squares[:, -1], squares[:, :, 0], squares[:, :, -1]]
    ground = np.concatenate(edges, axis=1).mean(axis=1)
    np.testing.assert_allclose(found[:, 0, 0], ground, atol=1e-3)
    np.testing.assert_allclose(found[:, :16].std(axis=(1, 2)), 0, atol=0.01)
    middle = found[:, 16:48, 16:48]
    np.testing.assert_allclose(middle.mean(axis=(1, 2)), squares.mean(axis=(1, 2)), atol=4)


def test_a_crop_of_a_padded_picture_is_the_picture(squares):
    again = seen(seen(squares, 1.6), 0.625)
    assert np.abs(again - squares).mean() < 5


@pytest.mark.parametrize("scale", [0.5, 0.0, -1.0, 2.5, float("nan")])
def test_a_scale_that_shows_too_little_is_refused(scale):
    with pytest.raises(UserError, match=r"scale of a test-time view is .*a crop in \(0.5, 1\]"):
        View(scale)
