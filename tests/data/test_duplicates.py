"""What a look at each file tells, pairs of files that show the same, and leaked test images."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nutclf.data.duplicates import (
    SEEN,
    find_pairs,
    inspect,
    leaked_test_images,
    leaks_into_test,
)
from nutclf.data.folder import scan

PHOTOGRAPHS = os.environ.get("NUTCLF_DATA")


def picture(side=40):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8))


# A look at each file


def header_of(file):
    return tuple(getattr(file, name) for name in SEEN[:5])


def test_every_file_is_seen_with_its_folders_and_its_digest(tree):
    data = scan(tree)
    files = inspect(data)
    assert files["path"].tolist() == data.files["path"].tolist()
    (one,) = files[files["path"] == "test/walnuts/0.png"].itertuples()
    assert (one.split, one.label, one.problem) == ("test", "walnuts", "")
    assert one.sha256 == data.split("test")["sha256"][1]
    assert header_of(one) == ("PNG", 8, 8, "RGB", 1)
    assert one.likeness.shape == (256,)


def test_broken_files_have_a_problem_and_a_header_where_it_is_whole(tree):
    html, cut = tree / "train/almonds/0.png", tree / "train/almonds/1.png"
    html.write_text("<html>404</html>")
    picture(200).save(cut)
    cut.write_bytes(cut.read_bytes()[:500])
    first, second = inspect(scan(tree))[:2].itertuples()
    assert "HTML" in first.problem
    assert (header_of(first), first.likeness) == (("", 0, 0, "", 1), None)
    assert second.problem.startswith("it cannot be decoded")
    assert (header_of(second), second.likeness) == (("PNG", 200, 200, "RGB", 1), None)


@pytest.mark.parametrize(("written", "told"), [(6, 6), (1, 1), (0, 1), (9, 1)])
def test_the_content_tells_the_format_and_an_orientation_that_makes_sense(tree, written, told):
    exif = Image.Exif()
    exif[0x0112] = written
    one, several = tree / "train/almonds/0.png", tree / "train/almonds/1.png"
    picture().save(one, format="JPEG", exif=exif)
    picture().save(several, "MPO", exif=exif, save_all=True, append_images=[picture()])
    first, second = inspect(scan(tree))[:2].itertuples()
    assert header_of(first) == ("JPEG", 40, 40, "RGB", told)
    assert second.format == "JPEG"


# Pairs


def seen(path, bits=(), sha256=None, problem=""):
    """A file that was looked at; `bits` of a balanced hash are turned over."""
    likeness = np.arange(256) % 2 == 0
    likeness[list(bits)] ^= True
    split, label, _ = path.split("/")
    likeness = None if problem else likeness
    sha256 = path if sha256 is None else sha256
    facts = {"path": path, "split": split, "label": label, "sha256": sha256}
    return facts | {"problem": problem, "likeness": likeness}


def far(path, seed):
    """A file that looks like no other, except one from the same seed."""
    file = seen(path)
    return file | {"likeness": np.random.default_rng(seed).permutation(file["likeness"])}


def pairs_of(*files):
    return find_pairs(pd.DataFrame(list(files)))


def test_equal_bytes_come_first_then_the_fewest_bits():
    pairs = pairs_of(
        seen("train/a/0.png"),
        seen("train/a/1.png", bits=range(9)),
        seen("valid/b/0.png", bits=range(2)),
        far("valid/a/7.png", 1),
        seen("test/a/0.png", sha256="train/a/0.png"),
    )
    assert [(pair.first, pair.second, pair.equal_bytes, pair.bits) for pair in pairs[:3]] == [
        ("train/a/0.png", "test/a/0.png", True, 0),
        ("train/a/0.png", "valid/b/0.png", False, 2),
        ("valid/b/0.png", "test/a/0.png", False, 2),
    ]
    assert not any("7.png" in pair.first + pair.second for pair in pairs)
    assert len(pairs) == 6


def test_a_pair_knows_whether_it_crosses_splits_or_labels():
    same, splits, labels = (
        pairs_of(seen("train/a/0.png"), seen("train/a/1.png", sha256="train/a/0.png"))
        + pairs_of(seen("train/a/0.png"), seen("valid/a/1.png", bits=[3]))
        + pairs_of(seen("train/a/0.png"), seen("train/b/1.png", bits=[3]))
    )
    assert (same.across_splits, same.labels_disagree) == (False, False)
    assert (splits.across_splits, splits.labels_disagree) == (True, False)
    assert (labels.across_splits, labels.labels_disagree) == (False, True)
    assert (same.how_like, splits.how_like) == ("equal bytes", "1 of 256 bits differ")


def test_a_leak_is_a_test_image_that_another_split_has_and_its_likest_copy_is_named():
    pairs = pairs_of(
        seen("train/a/0.png", bits=range(5)),
        seen("train/a/1.png", bits=range(3)),
        far("valid/a/0.png", 1),
        seen("test/a/0.png"),
        seen("test/a/1.png", bits=[200]),
        far("test/a/2.png", 2),
        far("test/a/3.png", 2),  # like its neighbour, which is no leak
    )
    assert leaks_into_test(pairs) == {
        "test/a/0.png": "train/a/1.png",
        "test/a/1.png": "train/a/1.png",
    }


def test_broken_files_can_be_equal_but_are_never_near():
    html = [seen(f"train/a/{i}.png", sha256="same", problem="it is HTML") for i in range(2)]
    unread = [seen(f"train/a/{i}.png", sha256="", problem="gone") for i in range(2, 4)]
    (pair,) = pairs_of(*html, *unread)
    assert pair.equal_bytes


def test_plain_images_are_not_taken_for_copies_of_each_other(tree):
    """The tree's images are plain, each of another colour."""
    assert find_pairs(inspect(scan(tree))) == []


def test_a_recompressed_copy_leaks(nuts, tmp_path):
    root = shutil.copytree(nuts, tmp_path / "nuts")
    assert leaked_test_images(scan(root)) == {}
    with Image.open(root / "train/pecans/3.png") as image:
        image.resize((150, 150)).save(root / "test/pecans/9.jpg", quality=90)
    assert leaked_test_images(scan(root)) == {"test/pecans/9.jpg": "train/pecans/3.png"}


@pytest.mark.photographs
@pytest.mark.skipif(not PHOTOGRAPHS, reason="NUTCLF_DATA is not set")
def test_the_photographs_have_one_leak_and_a_picture_under_two_labels():
    pairs = find_pairs(inspect(scan(PHOTOGRAPHS)))
    assert leaks_into_test(pairs) == {"test/coconut/4.jpg": "train/coconut/07.jpg"}
    assert pairs[0].equal_bytes
    (disagree,) = (pair for pair in pairs if pair.labels_disagree)
    assert (disagree.first, disagree.second, disagree.bits) == (
        "train/brazil nuts/094.jpg",
        "train/pecans/086.jpg",
        0,
    )
    assert len(pairs) == 9
