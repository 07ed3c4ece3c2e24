"""A folder of images is listed once, in one order, and says what it left out."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nutclf.config import SPLITS
from nutclf.data.folder import read_split, scan
from nutclf.errors import UserError

PHOTOGRAPHS = os.environ.get("NUTCLF_DATA")  # at import: no setting reaches a test itself


def the_note(folder, about: str) -> str:
    (note,) = [line for line in folder.notes if about in line]
    return note


# Classes


def test_a_tidy_folder_is_listed_in_order_and_without_a_note(tree):
    folder = scan(tree)
    assert folder.classes == ("almonds", "walnuts")
    assert folder.notes == ()
    assert folder.split("train")["path"].tolist() == [
        "train/almonds/0.png",
        "train/almonds/1.png",
        "train/walnuts/0.png",
        "train/walnuts/1.png",
    ]
    assert folder.split("train")["label"].tolist() == [0, 0, 1, 1]
    assert folder.split("test").index.tolist() == [0, 1]
    assert folder.files.columns.tolist() == ["path", "split", "label", "sha256"]


def test_classes_are_numbered_by_name_whatever_the_disk_says(tree, write_image):
    for split in SPLITS:
        write_image(tree / split / "Zebra nuts" / "0.png")
        write_image(tree / split / "brazil nuts" / "0.png")
    # Python's order of letters: capitals first, as Keras sorts too.
    assert scan(tree).classes == ("Zebra nuts", "almonds", "brazil nuts", "walnuts")


def test_a_class_that_train_lacks_is_refused(tree, write_image):
    write_image(tree / "test" / "peanuts" / "0.png")
    with pytest.raises(UserError, match=r"test/ has classes that train/ lacks: peanuts"):
        scan(tree)


def test_a_class_of_train_only_is_refused(tree, write_image):
    write_image(tree / "train" / "pecans" / "0.png")
    with pytest.raises(UserError, match=r"present in train/ only: pecans"):
        scan(tree)


@pytest.mark.parametrize("lacking", ["valid", "test"])
def test_a_class_that_one_of_valid_and_test_lacks_is_a_note(tree, lacking):
    shutil.rmtree(tree / lacking / "walnuts")
    folder = scan(tree)
    assert folder.classes == ("almonds", "walnuts")
    assert the_note(folder, "walnuts").startswith(f"{lacking}/ has no image of walnuts")


def test_an_empty_class_folder_counts_as_lacking(tree):
    (tree / "valid" / "peanuts").mkdir()
    (tree / "valid" / "walnuts" / "0.png").unlink()
    folder = scan(tree)
    assert "no image" in the_note(folder, "peanuts")
    assert "no image" in the_note(folder, "walnuts")


def test_an_empty_class_folder_in_train_is_refused(tree):
    for path in (tree / "train" / "walnuts").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="without an image: walnuts"):
        scan(tree)


def test_fewer_than_two_classes_are_refused(tree):
    for split in SPLITS:
        shutil.rmtree(tree / split / "walnuts")
    with pytest.raises(UserError, match=r"train/ has 1 class folders \(almonds\)"):
        scan(tree)


def test_a_split_without_an_image_is_refused(tree):
    shutil.rmtree(tree / "valid")
    (tree / "valid").mkdir()
    with pytest.raises(UserError, match="valid/ holds no image"):
        scan(tree)


@pytest.mark.parametrize("split", SPLITS)
def test_a_missing_split_is_refused_with_what_was_found(tree, split):
    (tree / split).rename(tree / "other")
    with pytest.raises(UserError) as caught:
        scan(tree)
    assert "train/, valid/ and test/" in str(caught.value)
    assert f"no folder: {split}." in str(caught.value)
    assert "other" in str(caught.value)


def test_a_root_that_is_missing_or_a_file_is_refused(tree):
    with pytest.raises(UserError, match="is missing"):
        scan(tree / "nowhere")
    with pytest.raises(UserError, match="is no folder"):
        scan(tree / "train" / "almonds" / "0.png")


# Litter, names, links


def test_litter_is_ignored_and_counted(tree, write_image):
    clean = scan(tree)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.jpg"):
        (tree / "train" / "almonds" / name).write_bytes(b"litter")
    write_image(tree / "train" / ".ipynb_checkpoints" / "0.png")
    write_image(tree / "valid" / "almonds" / ".ipynb_checkpoints" / "0.png")
    folder = scan(tree)
    assert folder.classes == clean.classes
    assert folder.fingerprint == clean.fingerprint
    assert the_note(folder, "litter").startswith("6 litter files and folders ignored")
    assert "Thumbs.db" in the_note(folder, "litter")


def test_every_image_extension_counts_in_either_case_and_others_are_noted(tree):
    almonds = tree / "train" / "almonds"
    names = ["a.webp", "b.jfif", "c.tif", "D.JPG", "e.jpe", "f.tiff", "g.bmp", "h.GIF", "i.jpeg"]
    for name in names:
        shutil.copy(almonds / "0.png", almonds / name)
    (almonds / "list.csv").write_text("path")
    (almonds / "README").write_text("no extension")
    (tree / "train" / "loose.jpg").write_bytes(b"")
    folder = scan(tree)
    found = [Path(path).name for path in folder.split("train")["path"]]
    assert set(names) <= set(found)
    assert "'.csv'" in the_note(folder, "train/almonds/list.csv ignored")
    assert "''" in the_note(folder, "train/almonds/README ignored")
    assert "outside the class folders" in the_note(folder, "train/loose.jpg")


def test_names_with_spaces_newlines_and_other_letters_are_read(tree, write_image):
    names = ["with space.png", "new\nline.png", "nüsse-栗.png"]
    for name in names:
        write_image(tree / "train" / "walnuts" / name)
    (tree / "train" / "walnuts" / "odd\nname.txt").write_text("")
    folder = scan(tree)
    loaded = read_split(folder, "train", 8)
    assert {f"train/walnuts/{name}" for name in names} <= set(loaded.paths)
    assert r"odd\nname.txt" in the_note(folder, "name.txt")
    assert all("\n" not in note for note in folder.notes)


def test_a_name_that_is_not_unicode_is_a_note(tree):
    path = os.fsencode(tree / "train" / "walnuts") + b"/\xff.png"
    try:
        with open(path, "wb"):
            pass
    except OSError as error:
        pytest.skip(f"this file system takes Unicode names only: {error}")
    assert "not UTF-8" in the_note(scan(tree), "udcff")


def test_links_cannot_lead_out_of_the_folder(tree, tmp_path, write_image):
    outside = write_image(tmp_path / "secret.png")
    almonds = tree / "train" / "almonds"
    (almonds / "out.png").symlink_to(outside)
    (almonds / "gone.png").symlink_to("nowhere.png")
    (almonds / "loop.png").symlink_to("loop.png")
    (almonds / "in.png").symlink_to("0.png")
    folder = scan(tree)
    assert folder.split("train")["path"].tolist()[:3] == [
        "train/almonds/0.png",
        "train/almonds/1.png",
        "train/almonds/in.png",
    ]
    assert "leaves the data folder" in the_note(folder, "out.png")
    assert "nowhere, or in a loop" in the_note(folder, "gone.png")
    assert "nowhere, or in a loop" in the_note(folder, "loop.png")


def test_links_to_folders_are_not_followed_so_loops_end(tree, tmp_path):
    (tree / "train" / "again").symlink_to(tree / "train")
    (tree / "train" / "almonds" / "up").symlink_to("..")
    folder = scan(tree)
    assert folder.classes == ("almonds", "walnuts")
    assert "a link, not followed" in the_note(folder, "train/again")
    assert "a folder inside a class folder" in the_note(folder, "train/almonds/up")


def test_a_split_that_is_a_link_is_refused(tree):
    shutil.rmtree(tree / "test")
    (tree / "test").symlink_to("valid")
    with pytest.raises(UserError, match="Links, which are not followed: test"):
        scan(tree)


def test_the_root_itself_may_be_a_link(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree)
    assert scan(tmp_path / "link").root == tree.resolve()


def test_a_folder_or_a_pipe_named_like_an_image_is_a_note(tree):
    (tree / "train" / "almonds" / "x.jpg").mkdir()
    os.mkfifo(tree / "train" / "almonds" / "pipe.jpg")
    folder = scan(tree)
    assert "a folder inside a class folder" in the_note(folder, "x.jpg")
    assert "no regular file" in the_note(folder, "pipe.jpg")
    assert len(folder.split("train")) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission_is_noted_and_left_out_by_name(tree):
    (tree / "train" / "almonds" / "1.png").chmod(0)
    folder = scan(tree)
    assert "Permission denied" in the_note(folder, "train/almonds/1.png")
    loaded = read_split(folder, "train", 8, allow_unreadable=True)
    ((path, reason),) = loaded.unreadable
    assert path == "train/almonds/1.png"
    assert "Permission denied" in reason


# Fingerprint


def test_the_fingerprint_follows_content_and_names_and_nothing_else(tree, tmp_path, write_image):
    before = scan(tree).fingerprint
    assert len(before) == 64
    shutil.copytree(tree, tmp_path / "copy")
    assert scan(tmp_path / "copy").fingerprint == before

    image = tree / "train" / "almonds" / "0.png"
    image.rename(image.with_name("9.png"))
    renamed = scan(tree).fingerprint
    image.with_name("9.png").rename(image)
    write_image(image, (1, 2, 3))
    assert len({before, renamed, scan(tree).fingerprint}) == 3


# Reading


def test_each_row_of_a_split_is_the_image_of_its_path(tree):
    folder = scan(tree)
    loaded = read_split(folder, "train", 8)
    assert loaded.images.shape == (4, 8, 8, 3)
    assert (loaded.images.dtype, loaded.labels.dtype) == (np.uint8, np.int64)
    # The colour of an image is (100 * label, its number, 0 in train).
    np.testing.assert_array_equal(
        loaded.images[:, 0, 0], [[0, 0, 0], [0, 1, 0], [100, 0, 0], [100, 1, 0]]
    )
    assert loaded.labels.tolist() == [0, 0, 1, 1]
    assert loaded.paths == folder.split("train")["path"].tolist()
    assert loaded.unreadable == ()


def test_what_cannot_be_read_is_left_out_and_named(tree):
    (tree / "train" / "almonds" / "0.png").write_text("<html>404</html>")
    loaded = read_split(scan(tree), "train", 8, allow_unreadable=True)
    ((path, reason),) = loaded.unreadable
    assert path == "train/almonds/0.png"
    assert "HTML" in reason
    assert loaded.paths == ["train/almonds/1.png", "train/walnuts/0.png", "train/walnuts/1.png"]
    np.testing.assert_array_equal(loaded.images[:, 0, 0, :2], [[0, 1], [100, 0], [100, 1]])
    assert loaded.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(("broken", "refused"), [(1, False), (2, True)])
def test_more_than_five_in_a_hundred_unreadable_are_refused(tree, broken, refused, write_image):
    for number in range(2, 18):  # 18 + 2 images: one is 5 %, two are 10 %
        write_image(tree / "train" / "almonds" / f"{number}.png")
    for number in range(broken):
        (tree / "train" / "almonds" / f"{number}.png").write_bytes(b"")
    folder = scan(tree)
    if not refused:
        assert len(read_split(folder, "train", 8).unreadable) == 1
        return
    with pytest.raises(UserError, match="2 of 20 train images cannot be read, more than 5%") as e:
        read_split(folder, "train", 8)
    assert "train/almonds/0.png: it is empty" in str(e.value)
    assert len(read_split(folder, "train", 8, allow_unreadable=True).unreadable) == 2


def test_a_class_of_train_of_which_nothing_can_be_read_is_refused(tree):
    for path in (tree / "train" / "walnuts").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="No train image of walnuts can be read"):
        read_split(scan(tree), "train", 8, allow_unreadable=True)


def test_an_unknown_split_is_refused(tree):
    with pytest.raises(UserError, match="split is 'val'; allowed: train, valid, test"):
        read_split(scan(tree), "val", 8)


# The real photographs


@pytest.mark.photographs
@pytest.mark.skipif(not PHOTOGRAPHS, reason="NUTCLF_DATA is not set")
def test_the_photographs_are_all_there_and_their_pixels_unchanged():
    folder = scan(PHOTOGRAPHS)
    counts = folder.files["split"].value_counts().to_dict()
    assert counts == {"train": 1163, "valid": 50, "test": 50}
    assert len(folder.classes) == 10
    loaded = read_split(folder, "valid", 224)
    assert loaded.unreadable == ()
    for path, pixels in zip(loaded.paths, loaded.images, strict=True):
        with Image.open(folder.root / path) as plain:
            assert plain.size == (224, 224)
            np.testing.assert_array_equal(pixels, np.array(plain.convert("RGB")))
