"""What a look at each file tells: format by content, size, mode, turn, and why it is broken."""

import numpy as np
import pytest
from PIL import Image

from nutclf.data.duplicates import Header, inspect, read_header
from nutclf.data.folder import scan


@pytest.fixture
def seen(tree):
    """Looks at the tree, whatever a test put into it: by path."""

    def look():
        return {file.path: file for file in inspect(scan(tree))}

    return look


def picture(side=40, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    return Image.fromarray(pixels)


def test_every_file_is_seen_with_its_folders_and_its_digest(seen, tree):
    files = seen()
    assert list(files) == list(scan(tree).files["path"])
    one = files["test/walnuts/0.png"]
    assert (one.split, one.label, one.problem) == ("test", "walnuts", "")
    assert len(one.sha256) == 64
    assert one.header == Header("PNG", 8, 8, "RGB", 1)
    assert one.likeness.shape == (256,)


def test_the_content_tells_the_format_and_not_the_name(seen, tree):
    picture().save(tree / "train/almonds/0.png", format="JPEG")
    assert seen()["train/almonds/0.png"].header.format == "JPEG"


def test_a_page_of_html_is_a_problem_and_no_image(seen, tree):
    (tree / "train/almonds/0.png").write_text("<html>404</html>")
    file = seen()["train/almonds/0.png"]
    assert "HTML" in file.problem
    assert (file.header, file.likeness) == (None, None)


def test_a_file_cut_short_has_a_header_and_a_problem(seen, tree):
    path = tree / "train/almonds/0.png"
    picture(200).save(path)
    path.write_bytes(path.read_bytes()[:500])
    file = seen()["train/almonds/0.png"]
    assert file.header == Header("PNG", 200, 200, "RGB", 1)
    assert file.problem.startswith("it cannot be decoded")
    assert file.likeness is None


@pytest.mark.parametrize(("written", "told"), [(6, 6), (1, 1), (0, 1), (9, 1)])
def test_an_exif_orientation_that_makes_sense_is_told(tmp_path, written, told):
    exif = Image.Exif()
    exif[0x0112] = written
    picture().save(tmp_path / "turned.jpg", exif=exif)
    assert read_header((tmp_path / "turned.jpg").read_bytes()).orientation == told


def test_size_and_mode_are_those_in_the_file(tmp_path):
    Image.new("L", (30, 10)).save(tmp_path / "grey.png")
    assert read_header((tmp_path / "grey.png").read_bytes()) == Header("PNG", 30, 10, "L", 1)
