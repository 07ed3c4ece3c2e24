"""Kaggle's copy is used when it is there and whole; without a network the answer is quick."""

import os
import socket
import time
from pathlib import Path

import pytest

from nutclf.config import SPLITS
from nutclf.data.kaggle import COUNTS, HANDLE, DataUnavailable, fetch
from nutclf.errors import UserError


@pytest.fixture
def put_in_cache(kaggle_out_of_reach, tree):
    """Leaves a download as kagglehub does, `counts[split]` links to one image in two classes."""

    def put(version: int, counts: dict, inside: str = "") -> Path:
        folder = kaggle_out_of_reach / "datasets" / HANDLE
        root = folder / "versions" / str(version) / inside
        for split in SPLITS:
            for name in ("almonds", "walnuts"):
                (root / split / name).mkdir(parents=True)
            for number in range(counts[split]):
                path = root / split / ("almonds", "walnuts")[number % 2] / f"{number}.png"
                os.link(tree / "train" / "almonds" / "0.png", path)
        (folder / f"{version}.complete").touch()
        return root

    return put


def test_without_a_network_one_plain_error_comes_quickly(kaggle_out_of_reach, put_in_cache):
    put_in_cache(1, dict.fromkeys(SPLITS, 2))  # cut short: not marked as complete
    (kaggle_out_of_reach / "datasets" / HANDLE / "1.complete").unlink()
    start = time.perf_counter()
    with pytest.raises(DataUnavailable, match=r"refused.*NUTCLF_DATA"):
        fetch()
    assert time.perf_counter() - start < 10
    assert issubclass(DataUnavailable, UserError)


def test_a_network_that_swallows_everything_is_given_up_on(kaggle_out_of_reach, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.perf_counter()
        with pytest.raises(DataUnavailable, match=r"no answer within 0\.3 s|timed out"):
            fetch(seconds_to_answer=0.3)
        assert time.perf_counter() - start < 5


def test_the_newest_copy_in_the_cache_needs_no_network_wherever_it_has_the_splits(put_in_cache):
    put_in_cache(2, COUNTS)
    newest = put_in_cache(10, COUNTS, inside="nuts/data")
    assert fetch() == newest


def test_other_counts_than_the_published_are_refused_with_what_was_found(put_in_cache):
    root = put_in_cache(1, {"train": 6, "valid": 4, "test": 2})
    with pytest.raises(UserError) as caught:
        fetch()
    assert not isinstance(caught.value, DataUnavailable)
    assert "{'train': 1163, 'valid': 50, 'test': 50}" in str(caught.value)
    assert "{'train': 6, 'valid': 4, 'test': 2}" in str(caught.value)
    assert str(root) in str(caught.value)
