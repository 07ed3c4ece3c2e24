"""The right images are found in the right order, and a wrong name never falls back."""

import shutil
from dataclasses import replace

import pytest

from nutclf.config import SPLITS
from nutclf.data import drawn
from nutclf.data.kaggle import HANDLE
from nutclf.data.source import resolve
from nutclf.errors import UserError


@pytest.fixture
def few_drawings(monkeypatch):
    """One drawing per class and split: all of them take the longest of all here."""
    monkeypatch.setattr(drawn, "COUNTS", dict.fromkeys(SPLITS, 1))


def test_a_path_is_photographs_and_makes_no_drawings(tree, tmp_path):
    for data in (str(tree), tree.name):  # absolute, and from workdir
        source = resolve(data, environ={}, workdir=tmp_path)
        assert source.kind == "photographs"
        assert source.root == tree.resolve()
        assert source.data.classes == ("almonds", "walnuts")
        assert str(tree) in source.origin
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("data", ["nowhere", ".", ""])
def test_a_path_that_is_no_data_set_is_refused(tmp_path, data):
    with pytest.raises(UserError):
        resolve(data, environ={}, workdir=tmp_path)


def test_auto_takes_the_environment_before_the_local_folder(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "data" / "tree-nuts")
    local = resolve("auto", environ={"NUTCLF_DATA": ""}, workdir=tmp_path)
    assert local.root == tmp_path.resolve() / "data" / "tree-nuts"
    named = resolve("auto", environ={"NUTCLF_DATA": str(tree)}, workdir=tmp_path)
    assert named.root == tree.resolve()
    assert named.kind == local.kind == "photographs"
    assert "NUTCLF_DATA" in named.origin
    with pytest.raises(UserError, match=r"NUTCLF_DATA is '/nowhere'.* is missing"):
        resolve("auto", environ={"NUTCLF_DATA": "/nowhere"}, workdir=tmp_path)


def test_a_malformed_local_folder_is_an_error_not_a_fallback(tmp_path):
    (tmp_path / "data" / "tree-nuts").mkdir(parents=True)
    with pytest.raises(UserError, match="must hold train/, valid/ and test/"):
        resolve("auto", environ={}, workdir=tmp_path)


def test_a_damaged_download_is_an_error_not_a_fallback(kaggle_out_of_reach, tree, tmp_path):
    kept = kaggle_out_of_reach / "datasets" / HANDLE
    shutil.copytree(tree, kept / "versions" / "1")
    (kept / "1.complete").touch()
    with pytest.raises(UserError, match="should have"):
        resolve("auto", environ={}, workdir=tmp_path)


def test_drawn_images_are_made_under_the_workdir_and_auto_says_that_they_are_none(
    few_drawings, kaggle_out_of_reach, tmp_path
):
    asked_for = resolve("drawn", environ={"NUTCLF_DATA": "/nowhere"}, workdir=tmp_path)
    assert asked_for.root.is_relative_to(tmp_path.resolve() / "data")
    fallen_back = resolve("auto", environ={}, workdir=tmp_path)
    assert asked_for.kind == fallen_back.kind == "drawn"
    assert asked_for.data.fingerprint == fallen_back.data.fingerprint
    assert fallen_back.origin.startswith("DRAWN IMAGES, NOT PHOTOGRAPHS")
    assert "To use photographs set NUTCLF_DATA to a folder" in fallen_back.origin
    assert "data/tree-nuts/" in fallen_back.origin
    assert "Kaggle" in fallen_back.origin


def test_records_have_the_name_of_the_data(tree, tmp_path):
    """`tree` has two of the ten nuts."""
    assert resolve(str(tree), environ={}, workdir=tmp_path).model == "nutclf"
    for split in SPLITS:
        (tree / split / "almonds").rename(tree / split / "beans")
    (tree.rename(tmp_path / "Bohnen & Nüsse!")).joinpath("x").touch()
    source = resolve("Bohnen & Nüsse!", environ={}, workdir=tmp_path)
    assert source.model == "bohnen-nüsse"
    assert replace(source, name="mine").model == "mine"
