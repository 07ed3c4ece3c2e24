"""Pictures inside the page: small, warm where a map says so, empty where they are gone."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from nutclf.report.page import SIDE, thumbnail


@pytest.fixture
def root(tmp_path):
    Image.new("RGB", (300, 200), (90, 90, 90)).save(tmp_path / "grey.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    return tmp_path


def pixels(address):
    head, _, data = address.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.asarray(picture).astype(int)


def test_a_picture_is_a_small_square(root):
    found = pixels(thumbnail(root, "grey.png"))
    assert found.shape == (SIDE, SIDE, 3)
    assert np.abs(found - 90).max() < 3


def test_a_map_makes_it_warm(root):
    found = pixels(thumbnail(root, "grey.png", [[1, 0], [0, 0]]))
    assert found[5, 5, 0] - found[5, 5, 2] > 80
    assert abs(found[-5, -5, 0] - found[-5, -5, 2]) < 8


@pytest.mark.parametrize("path", ["gone.png", "broken.jpg", "."])
def test_what_cannot_be_read_is_left_out(root, path):
    assert thumbnail(root, path) == ""
