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


def the_note(data, about: str) -> str:
    (note,) = [line for line in data.notes if about in line]
    return note


# Classes


def test_a_tidy_folder_is_listed_in_order_and_without_a_note(tree):
    data = scan(tree)
    assert (data.classes, data.notes) == (("almonds", "walnuts"), ())
    assert data.files.columns.tolist() == ["path", "split", "label", "sha256"]
    assert data.split("train")["path"].tolist() == [
        "train/almonds/0.png",
        "train/almonds/1.png",
        "train/walnuts/0.png",
        "train/walnuts/1.png",
    ]
    assert data.split("train")["label"].tolist() == [0, 0, 1, 1]
    assert data.split("test").index.tolist() == [0, 1]
    with pytest.raises(UserError, match="split is 'val'; allowed: train, valid, test"):
        data.split("val")


def test_classes_are_numbered_by_name_whatever_the_disk_says(tree, write_image):
    for split in SPLITS:
        write_image(tree / split / "Zebra nuts" / "0.png")
        write_image(tree / split / "brazil nuts" / "0.png")
    # Python's order of letters: capitals first, as Keras sorts too.
    assert scan(tree).classes == ("Zebra nuts", "almonds", "brazil nuts", "walnuts")


def add_to_test(root):
    shutil.copytree(root / "test/almonds", root / "test/peanuts")


def add_to_train(root):
    shutil.copytree(root / "train/almonds", root / "train/pecans")


def empty_a_class(root):
    for path in (root / "train/walnuts").iterdir():
        path.unlink()


def leave_one_class(root):
    for split in SPLITS:
        shutil.rmtree(root / split / "walnuts")


def empty_a_split(root):
    shutil.rmtree(root / "valid")
    (root / "valid").mkdir()


def name_a_split_twice(root):
    shutil.copytree(root / "valid", root / "Val")


def leave_no_train(root):
    shutil.rmtree(root / "train")


def leave_one_image_to_split(root):
    shutil.rmtree(root / "valid")
    (root / "train/walnuts/1.png").unlink()


def link_a_split(root):
    shutil.rmtree(root / "test")
    (root / "test").symlink_to("valid")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (add_to_test, r"test/ has classes that train/ lacks: peanuts"),
        (add_to_train, r"present in train/ only: pecans"),
        (empty_a_class, r"without an image: walnuts"),
        (leave_one_class, r"train/ has 1 class folders \(almonds\)"),
        (empty_a_split, r"valid/ holds no image"),
        (name_a_split_twice, r"has Val, valid for valid; put them into one"),
        (leave_no_train, r"must hold train/, valid/ and test/ .*Found: test, valid;"),
        (leave_one_image_to_split, r"The class walnuts has 1 images .* too few to take valid from"),
        (link_a_split, r"test is no folder, or a link, which is not followed"),
    ],
)
def test_splits_that_do_not_agree_are_refused_in_a_sentence(tree, spoil, sentence):
    spoil(tree)
    with pytest.raises(UserError, match=sentence):
        scan(tree)


def test_what_was_left_out_is_named_where_nothing_is_left(tree):
    for file in (tree / "train/walnuts").iterdir():
        file.rename(file.with_suffix(".psd"))
    with pytest.raises(
        UserError, match=r"walnuts\..* Left out: train/walnuts/0.psd ignored: its ex"
    ):
        scan(tree)


def test_a_root_may_be_a_link_but_not_missing_nor_a_file(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree)
    assert scan(tmp_path / "link").root == tree.resolve()
    with pytest.raises(UserError, match="is missing"):
        scan(tree / "nowhere")
    with pytest.raises(UserError, match="is no folder"):
        scan(tree / "train" / "almonds" / "0.png")


def test_a_class_that_one_of_valid_and_test_lacks_is_a_note(tree):
    shutil.rmtree(tree / "test" / "almonds")
    (tree / "valid" / "peanuts").mkdir()
    (tree / "valid" / "walnuts" / "0.png").unlink()
    data = scan(tree)
    assert data.classes == ("almonds", "walnuts")
    assert the_note(data, "almonds").startswith("test/ has no image of almonds")
    assert the_note(data, "walnuts").startswith("valid/ has no image of walnuts")
    assert "valid/peanuts ignored: it holds no image" in data.notes


# Folders as people have them


@pytest.mark.parametrize("names", [("Training", "val", "TEST"), ("train", "dev", "testing")])
def test_splits_have_other_names_too(tree, names):
    for split, name in zip(SPLITS, names, strict=True):
        (tree / split).rename(tree / name)
    data = scan(tree)
    assert data.files["split"].tolist() == scan_of_the_same(tree, names).tolist()
    assert data.split("valid")["path"].tolist() == [f"{names[1]}/{c}/0.png" for c in data.classes]


def scan_of_the_same(tree, names):
    for split, name in zip(SPLITS, names, strict=True):
        (tree / name).rename(tree / split)
    splits = scan(tree).files["split"]
    for split, name in zip(SPLITS, names, strict=True):
        (tree / split).rename(tree / name)
    return splits


def test_data_may_lie_in_a_folder_of_an_archive(tree, tmp_path):
    (tmp_path / "download" / "v2").mkdir(parents=True)
    inner = tree.rename(tmp_path / "download" / "v2" / "nuts")
    (tmp_path / "download" / "read me.txt").touch()
    data = scan(tmp_path / "download")
    assert (data.root, len(data.files)) == (inner.resolve(), 8)


def test_images_may_lie_in_folders_of_a_class(tree, write_image):
    write_image(tree / "train" / "almonds" / "raw" / "kitchen" / "9.png")
    data = scan(tree)
    assert "train/almonds/raw/kitchen/9.png" in data.split("train")["path"].tolist()
    assert data.notes == ()


def test_an_image_needs_no_extension(tree):
    shutil.copy(tree / "train/almonds/0.png", tree / "train/almonds/photo")
    assert "train/almonds/photo" in scan(tree).split("train")["path"].tolist()


def test_a_small_class_keeps_most_of_its_images_for_training(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6 * 40):
        file = tmp_path / f"kind {number % 40}" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).save(file)
    counts = scan(tmp_path).files.groupby(["label", "split"]).size().unstack()
    assert (counts == [1, 4, 1]).all(axis=None)  # test, train, valid


@pytest.fixture
def loose(tmp_path):
    """Two class folders of 60 images each, and no splits; the images are different noise."""
    rng, root = np.random.default_rng(0), tmp_path / "loose"
    for name in ("mandeln süß", "walnuts"):
        (root / name).mkdir(parents=True)
        for number in range(60):
            noise = rng.integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(noise).save(root / name / f"{number}.png")
    return root


def split_of(data):
    return dict(zip(data.files["path"], data.files["split"], strict=True))


def test_class_folders_alone_are_split_by_content(loose, tmp_path):
    data = scan(loose)
    counts = data.files.groupby(["split", "label"]).size()
    assert data.classes == ("mandeln süß", "walnuts")
    assert counts.sum() == 120
    assert (counts["valid"] >= 1).all()
    assert (counts["test"] >= 1).all()
    assert (counts["train"] >= 36).all()
    assert "a tenth of train each instead" in the_note(data, "no folder for valid and test")
    copied = shutil.copytree(loose, tmp_path / "copied")
    (copied / "walnuts" / "0.png").rename(copied / "walnuts" / "another name.png")
    again = split_of(scan(copied))
    assert again.pop("walnuts/another name.png") == split_of(data)["walnuts/0.png"]
    assert again.items() <= split_of(data).items()


def test_images_that_come_later_leave_the_others_where_they_are(loose, write_image):
    before = split_of(scan(loose))
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (5, 5, 3), np.uint8)
        Image.fromarray(pixels).save(loose / "walnuts" / f"later {number}.png")
    after = split_of(scan(loose))
    assert len(after) == 140
    assert before.items() <= after.items()


def test_copies_stay_together(loose):
    for file in list((loose / "walnuts").iterdir()):
        shutil.copy(file, file.with_name(f"copy of {file.name}"))
    splits = split_of(scan(loose))
    for path, split in splits.items():
        if path.startswith("walnuts/copy of"):
            assert splits[path.replace("copy of ", "")] == split


def test_like_images_stay_together(tmp_path):
    """The same photograph, brighter, is no other image to test on."""
    rng = np.random.default_rng(0)
    for number in range(60):
        blocks = rng.integers(0, 200, (8, 8, 3), np.uint8).repeat(12, axis=0).repeat(12, axis=1)
        file = tmp_path / ("almonds" if number % 2 else "walnuts") / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(blocks).save(file)
        Image.fromarray(blocks + np.uint8(30)).save(file.with_suffix(".bmp"))
    splits = split_of(scan(tmp_path))
    assert {*splits.values()} == {"train", "valid", "test"}
    for path, split in splits.items():
        assert splits[path.replace(".bmp", ".png")] == split


@pytest.mark.parametrize("lacking", ["valid", "test"])
def test_one_split_that_is_missing_is_taken_from_train(loose, lacking):
    given = next(split for split in ("valid", "test") if split != lacking)
    for name in ("mandeln süß", "walnuts"):
        for split in ("train", given):
            (loose / split / name).parent.mkdir(exist_ok=True)
        shutil.copytree(loose / name, loose / given / name)
        (loose / name).rename(loose / "train" / name)
    data = scan(loose)
    assert len(data.split(given)) == 120
    assert 2 <= len(data.split(lacking)) <= 24
    assert len(data.split(lacking)) + len(data.split("train")) == 120


def test_four_images_a_class_are_enough_to_split(loose):
    for file in loose.glob("*/*.png"):
        if int(file.stem) >= 4:
            file.unlink()
    counts = scan(loose).files.groupby(["split", "label"]).size()
    assert (counts["valid"] >= 1).all()
    assert (counts["test"] >= 1).all()


# Tables


def table_of(tree, text, name="images.csv"):
    (tree / name).write_text(text, encoding="utf-8-sig")
    return tree / name


def test_a_table_lists_what_its_folder_does(tree):
    rows = scan(tree).files
    names = scan(tree).classes
    lines = [f"{p};{names[label]};{split}" for p, split, label, _ in rows.itertuples(index=False)]
    data = scan(table_of(tree, "File Paths;Labels;data set\n" + "\n".join(reversed(lines))))
    assert data.files.equals(rows)
    assert (data.classes, data.root, data.notes) == (names, tree.resolve(), ())


def test_a_table_needs_no_splits(loose):
    rows = [f"{file.relative_to(loose)},{file.parent.name}" for file in loose.glob("*/*.png")]
    data = scan(table_of(loose, "path,label\n" + "\n".join(rows)))
    (loose / "images.csv").unlink()
    assert split_of(data) == split_of(scan(loose))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1,2", r"has no column of paths, which may be called path, .*; it has a, b"),
        ("path,b\n1,2", r"has no column of labels"),
        ("path,label,split\nx.png,almonds,third", r"split 'third'; needed are"),
        ("path,label\ntrain/almonds/0.png,", r"label '' and"),
        ("path,label\ntrain/almonds/0.png,a\ntrain/almonds/0.png,b", "0.png twice"),
        (
            "path,label\nno.png,a\n../no.png,b",
            r"Left out: no.png ignored: there is no such file; ..",
        ),
        ("", "cannot be read"),
    ],
)
def test_what_is_no_table_of_images_is_refused(tree, text, sentence):
    with pytest.raises(UserError, match=sentence):
        scan(table_of(tree, text))


# Litter, names, links


def test_litter_is_ignored_and_counted(tree, write_image):
    clean = scan(tree)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.jpg"):
        (tree / "train" / "almonds" / name).write_bytes(b"litter")
    write_image(tree / "train" / ".ipynb_checkpoints" / "0.png")
    write_image(tree / "valid" / "almonds" / ".ipynb_checkpoints" / "0.png")
    data = scan(tree)
    assert (data.classes, data.fingerprint) == (clean.classes, clean.fingerprint)
    assert the_note(data, "litter").startswith("6 litter files and folders ignored")
    assert "Thumbs.db" in the_note(data, "litter")


def test_every_image_extension_counts_in_either_case_and_others_are_noted(tree):
    almonds = tree / "train" / "almonds"
    names = ["a.webp", "b.jfif", "c.tif", "D.JPG", "e.jpe", "f.tiff", "g.bmp", "h.GIF", "i.jpeg"]
    for name in names:
        shutil.copy(almonds / "0.png", almonds / name)
    (almonds / "list.csv").write_text("path")
    (almonds / "README").write_text("no extension")
    (tree / "train" / "loose.jpg").write_bytes(b"")
    data = scan(tree)
    assert set(names) <= {Path(path).name for path in data.split("train")["path"]}
    assert "'.csv'" in the_note(data, "train/almonds/list.csv ignored")
    assert "no extension, and is no image" in the_note(data, "train/almonds/README ignored")
    assert "outside the class folders" in the_note(data, "train/loose.jpg")


def test_names_with_spaces_newlines_and_other_letters_are_read(tree, write_image):
    names = ["with space.png", "new\nline.png", "nüsse-栗.png"]
    for name in names:
        write_image(tree / "train" / "walnuts" / name)
    (tree / "train" / "walnuts" / "odd\nname.txt").write_text("")
    data = scan(tree)
    assert {f"train/walnuts/{name}" for name in names} <= set(read_split(data, "train", 8).paths)
    assert r"odd\nname.txt" in the_note(data, "name.txt")
    assert all("\n" not in note for note in data.notes)


def test_a_file_name_that_is_not_unicode_is_a_note_and_a_class_name_is_refused(tree):
    path = os.fsencode(tree / "train" / "walnuts") + b"/\xff.png"
    try:
        with open(path, "wb"):
            pass
    except OSError as error:
        pytest.skip(f"this file system takes Unicode names only: {error}")
    assert "not UTF-8" in the_note(scan(tree), "udcff")
    os.mkdir(os.fsencode(tree / "train") + b"/\xff")
    with pytest.raises(UserError, match="udcff' is not UTF-8"):
        scan(tree)


def test_links_cannot_lead_out_of_the_folder_nor_to_folders(tree, tmp_path, write_image):
    almonds = tree / "train" / "almonds"
    (almonds / "out.png").symlink_to(write_image(tmp_path / "secret.png"))
    (almonds / "gone.png").symlink_to("nowhere.png")
    (almonds / "loop.png").symlink_to("loop.png")
    (almonds / "in.png").symlink_to("0.png")
    (almonds / "up").symlink_to("..")
    (tree / "train" / "again").symlink_to(tree / "train")
    data = scan(tree)
    assert data.classes == ("almonds", "walnuts")
    found = [path for path in data.split("train")["path"] if "almonds" in path]
    assert found == [f"train/almonds/{name}.png" for name in ("0", "1", "in")]
    assert "leaves the data folder" in the_note(data, "out.png")
    assert "nowhere, or in a loop" in the_note(data, "gone.png")
    assert "nowhere, or in a loop" in the_note(data, "loop.png")
    assert "a link to a folder" in the_note(data, "train/almonds/up")
    assert "a link, not followed" in the_note(data, "train/again")


def test_a_pipe_named_like_an_image_is_a_note(tree):
    os.mkfifo(tree / "train" / "almonds" / "pipe.jpg")
    data = scan(tree)
    assert "no regular file" in the_note(data, "pipe.jpg")
    assert len(data.split("train")) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission_is_noted_and_left_out_by_name(tree):
    (tree / "train" / "almonds" / "1.png").chmod(0)
    data = scan(tree)
    assert "Permission denied" in the_note(data, "train/almonds/1.png")
    assert data.split("train")["sha256"][1] == ""
    said = []
    read_split(data, "train", 8, say=said.append, allow_unreadable=True)
    assert said == ["left out train/almonds/1.png: it cannot be read: Permission denied"]


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
    changed = scan(tree).fingerprint
    shutil.move(image, tree / "valid" / "almonds" / "9.png")
    assert len({before, renamed, changed, scan(tree).fingerprint}) == 4


# Reading


def test_each_row_of_a_split_is_the_image_of_its_path(tree):
    data = scan(tree)
    split = read_split(data, "train", 8)
    assert split.pixels.shape == (4, 8, 8, 3)
    assert (split.pixels.dtype, split.labels.dtype) == (np.uint8, np.int64)
    # The colour of an image is (100 * label, its number, 0 in train).
    colours = [[0, 0, 0], [0, 1, 0], [100, 0, 0], [100, 1, 0]]
    np.testing.assert_array_equal(split.pixels[:, 0, 0], colours)
    assert split.labels.tolist() == [0, 0, 1, 1]
    assert split.paths == data.split("train")["path"].tolist()
    assert split.keys == data.split("train")["sha256"].tolist()


def test_what_cannot_be_read_is_left_out_and_told(tree):
    (tree / "train" / "almonds" / "0.png").write_text("<html>404</html>")
    data, said = scan(tree), []
    split = read_split(data, "train", 8, say=said.append, allow_unreadable=True)
    (line,) = said
    assert line.startswith("left out train/almonds/0.png: it is an HTML or XML page")
    np.testing.assert_array_equal(split.pixels[:, 0, 0, :2], [[0, 1], [100, 0], [100, 1]])
    left = data.split("train")[1:]
    assert split.labels.tolist() == [0, 1, 1]
    assert (split.paths, split.keys) == (left["path"].tolist(), left["sha256"].tolist())


def test_the_table_is_read_and_the_folder_is_not_listed_again(tree, write_image):
    data = scan(tree)
    write_image(tree / "train" / "almonds" / "9.png")
    assert len(read_split(data, "train", 8).paths) == 4


def test_a_file_that_changed_since_it_was_listed_is_refused(tree, write_image):
    data = scan(tree)
    write_image(tree / "train" / "almonds" / "0.png", (1, 2, 3))
    with pytest.raises(UserError, match=r"train/almonds/0\.png in .* has changed since the data"):
        read_split(data, "train", 8, allow_unreadable=True)
    read_split(data, "valid", 8)


@pytest.mark.parametrize(("broken", "refused"), [(1, False), (2, True)])
def test_more_than_five_in_a_hundred_unreadable_are_refused(tree, broken, refused, write_image):
    for number in range(2, 18):  # 18 + 2 images: one is 5 %, two are 10 %
        write_image(tree / "train" / "almonds" / f"{number}.png")
    for number in range(broken):
        (tree / "train" / "almonds" / f"{number}.png").write_bytes(b"")
    data = scan(tree)
    if not refused:
        assert len(read_split(data, "train", 8).paths) == 19
        return
    with pytest.raises(UserError, match="2 of 20 train images cannot be read, more than 5%") as e:
        read_split(data, "train", 8)
    assert "train/almonds/0.png: it is empty" in str(e.value)
    assert len(read_split(data, "train", 8, allow_unreadable=True).paths) == 18


def test_a_class_of_train_of_which_nothing_can_be_read_is_refused(tree):
    for path in (tree / "train" / "walnuts").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="No train image of walnuts can be read"):
        read_split(scan(tree), "train", 8, allow_unreadable=True)


@pytest.mark.photographs
@pytest.mark.skipif(not PHOTOGRAPHS, reason="NUTCLF_DATA is not set")
def test_the_photographs_are_all_there_and_their_pixels_unchanged():
    data = scan(PHOTOGRAPHS)
    assert data.files["split"].value_counts().to_dict() == {"train": 1163, "valid": 50, "test": 50}
    assert len(data.classes) == 10
    split = read_split(data, "valid", 224)
    assert len(split.paths) == 50
    for path, pixels in zip(split.paths, split.pixels, strict=True):
        with Image.open(data.root / path) as plain:
            assert plain.size == (224, 224)
            np.testing.assert_array_equal(pixels, np.array(plain.convert("RGB")))
