"""Kaggle's copy is used when it is there and whole; without a network the answer is quick."""

import shutil
import socket
import time
from pathlib import Path

import pytest

from nutclf.config import SPLITS
from nutclf.data.kaggle import COUNTS, HANDLE, DataUnavailable, fetch
from nutclf.errors import UserError


def put_in_cache(cache: Path, tree: Path, version: int, counts: dict, inside: str = "") -> Path:
    """A download as kagglehub leaves it, `counts[split]` copies of one image in two classes."""
    folder = cache / "datasets" / HANDLE
    root = folder / "versions" / str(version) / inside
    image = tree / "train" / "almonds" / "0.png"
    for split in SPLITS:
        for number in range(counts[split]):
            path = root / split / ("almonds", "walnuts")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, path)
    (folder / f"{version}.complete").touch()
    return root


def test_without_a_network_one_plain_error_comes_quickly(kaggle_out_of_reach):
    start = time.perf_counter()
    with pytest.raises(DataUnavailable, match="NUTCLF_DATA") as caught:
        fetch()
    assert time.perf_counter() - start < 10
    assert "refused" in str(caught.value)
    assert isinstance(caught.value, UserError)


def test_a_network_that_swallows_everything_is_given_up_on(kaggle_out_of_reach, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.perf_counter()
        with pytest.raises(DataUnavailable, match=r"no answer within 0\.3 s|timed out"):
            fetch(seconds_to_answer=0.3)
        assert time.perf_counter() - start < 5


def test_a_copy_in_the_cache_needs_no_network(kaggle_out_of_reach, tree):
    put_in_cache(kaggle_out_of_reach, tree, 1, COUNTS)
    newest = put_in_cache(kaggle_out_of_reach, tree, 10, COUNTS)
    assert fetch() == newest


def test_a_download_cut_short_does_not_count_as_a_copy(kaggle_out_of_reach, tree):
    put_in_cache(kaggle_out_of_reach, tree, 1, dict.fromkeys(SPLITS, 2))
    (kaggle_out_of_reach / "datasets" / HANDLE / "1.complete").unlink()
    with pytest.raises(DataUnavailable):
        fetch()


def test_the_splits_are_found_wherever_the_archive_has_them(kaggle_out_of_reach, tree):
    root = put_in_cache(kaggle_out_of_reach, tree, 1, COUNTS, inside="nuts/data")
    assert fetch() == root


def test_other_counts_than_the_published_are_refused_with_what_was_found(kaggle_out_of_reach, tree):
    root = put_in_cache(kaggle_out_of_reach, tree, 1, {"train": 6, "valid": 4, "test": 2})
    with pytest.raises(UserError) as caught:
        fetch()
    assert not isinstance(caught.value, DataUnavailable)
    assert "{'train': 1163, 'valid': 50, 'test': 50}" in str(caught.value)
    assert "{'train': 6, 'valid': 4, 'test': 2}" in str(caught.value)
    assert str(root) in str(caught.value)
