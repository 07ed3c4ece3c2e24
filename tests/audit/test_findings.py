"""What is wrong with files: each fault made on purpose, and found under its own name."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from nutclf.audit.images import audit_files
from nutclf.data.folder import IMAGE_EXTENSIONS, scan


@pytest.fixture
def spoiled(nuts, tmp_path):
    """The tiny images, to be spoiled."""
    return shutil.copytree(nuts, tmp_path / "nuts")


def audit(root):
    return audit_files(scan(root), side=96)


def found(findings):
    return {finding["path"]: finding["what"] for finding in findings}


def noise(width=96, height=96):
    pixels = np.random.default_rng(9).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def test_images_without_fault_give_no_finding(spoiled):
    clean = audit(spoiled)
    assert clean.n_images == 3 * (8 + 4 + 4)
    assert (clean.unreadable, clean.mistyped, clean.odd, clean.pairs) == ([], [], [], [])
    assert clean.leaks == {}


def test_a_broken_file_is_unreadable_and_nothing_else(spoiled):
    (spoiled / "train/pecans/0.png").write_text("<html>404</html>")
    spoilt = audit(spoiled)
    assert list(found(spoilt.unreadable)) == ["train/pecans/0.png"]
    assert "HTML" in found(spoilt.unreadable)["train/pecans/0.png"]
    assert (spoilt.mistyped, spoilt.odd) == ([], [])


def test_a_jpeg_named_png_is_mistyped_and_every_name_that_is_read_says_a_format(spoiled):
    noise().save(spoiled / "valid/pecans/0.png", format="JPEG")
    assert found(audit(spoiled).mistyped) == {"valid/pecans/0.png": "JPEG, named as PNG"}
    pytest.importorskip("pillow_heif").register_heif_opener()
    assert set(Image.registered_extensions()) >= IMAGE_EXTENSIONS


def test_a_name_without_extension_says_nothing_wrong(spoiled):
    (spoiled / "valid/pecans/0.png").rename(spoiled / "valid/pecans/photo")
    assert audit(spoiled).mistyped == []


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((40, 40), "size 40 x 40: enlarged, the network takes 96 x 96"),
        ((120, 120), "nearly all others are 96 x 96"),
        ((300, 100), "aspect 300 x 100"),
    ],
)
def test_another_size_is_odd(spoiled, size, words):
    noise(*size).save(spoiled / "test/almonds/0.png")
    odd = [finding for finding in audit(spoiled).odd if words in finding["what"]]
    assert [finding["path"] for finding in odd] == ["test/almonds/0.png"]


def test_where_sizes_differ_anyway_none_is_odd(spoiled):
    for number, path in enumerate(sorted(spoiled.rglob("*.png"))):
        with Image.open(path) as image:
            image.resize((100 + number, 100)).save(path)
    assert audit(spoiled).odd == []


def test_a_mode_and_a_rotation_are_odd(spoiled):
    Image.effect_noise((96, 96), 90).save(spoiled / "train/almonds/0.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    noise().save(spoiled / "train/almonds/1.png", exif=exif)
    assert found(audit(spoiled).odd) == {
        "train/almonds/0.png": "mode L: converted to RGB",
        "train/almonds/1.png": "EXIF orientation 6: turned upright when read",
    }


def test_a_blank_image_is_odd(spoiled):
    Image.new("RGB", (96, 96), "white").save(spoiled / "train/almonds/0.png")
    what = "one colour nearly everywhere: blank, too dark or damaged"
    assert found(audit(spoiled).odd) == {"train/almonds/0.png": what}


def test_the_record_is_json_and_holds_everything(spoiled):
    shutil.copy(spoiled / "train/pecans/0.png", spoiled / "test/walnuts/copy.png")
    (spoiled / "train/almonds/0.png").write_bytes(b"")
    record = json.loads(json.dumps(asdict(audit(spoiled))))
    (empty,) = record["unreadable"]
    what = {"label": "almonds", "what": "it is empty (0 bytes)"}
    assert empty == {"path": "train/almonds/0.png"} | what
    assert record["leaks"] == {"test/walnuts/copy.png": "train/pecans/0.png"}
    (pair,) = record["pairs"]
    assert pair["labels"] == ["pecans", "walnuts"]
    assert pair["labels_disagree"] is pair["across_splits"] is pair["equal_bytes"] is True
    assert record["balance"]["test"] == {"almonds": 4, "pecans": 4, "walnuts": 5}
