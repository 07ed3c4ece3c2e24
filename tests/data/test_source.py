"""The right images are found in the right order, and a wrong name never falls back."""

import shutil

import pytest

from nutclf.data.kaggle import HANDLE
from nutclf.data.source import resolve
from nutclf.errors import UserError


@pytest.fixture(scope="module")
def drawn_workdir(tmp_path_factory):
    """One for the file: the drawings are made once, which takes the longest of all here."""
    return tmp_path_factory.mktemp("workdir")


def test_a_path_is_photographs(tree, tmp_path):
    for data in (str(tree), tree.name):  # absolute, and from workdir
        source = resolve(data, environ={}, workdir=tmp_path)
        assert source.kind == "photographs"
        assert source.root == tree.resolve()
        assert source.folder.classes == ("almonds", "walnuts")
        assert str(tree) in source.origin


def test_a_path_that_is_no_data_set_is_refused(tmp_path):
    for data in ("nowhere", ".", ""):
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


def test_a_wrong_environment_variable_is_an_error_not_a_fallback(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "data" / "tree-nuts")
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


def test_a_named_folder_is_used_although_drawings_were_possible(tree, tmp_path):
    resolve(str(tree), environ={}, workdir=tmp_path)
    assert not (tmp_path / "data").exists()


def test_drawn_images_are_made_under_the_workdir_and_found_again(drawn_workdir):
    source = resolve("drawn", environ={"NUTCLF_DATA": "/nowhere"}, workdir=drawn_workdir)
    assert source.kind == "drawn"
    assert source.root.is_relative_to(drawn_workdir.resolve() / "data")
    again = resolve("drawn", environ={}, workdir=drawn_workdir)
    assert again.folder.fingerprint == source.folder.fingerprint


def test_auto_without_any_photograph_says_so_in_words_nobody_can_miss(
    kaggle_out_of_reach, drawn_workdir
):
    source = resolve("auto", environ={}, workdir=drawn_workdir)
    assert source.kind == "drawn"
    assert source.origin.startswith("DRAWN IMAGES, NOT PHOTOGRAPHS")
    assert "To use photographs set NUTCLF_DATA to a folder" in source.origin
    assert "data/tree-nuts/" in source.origin
    assert "Kaggle" in source.origin
