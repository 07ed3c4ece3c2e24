"""Tiny trees of solid colours, made on the spot."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from nutclf.config import SPLITS


def _write_image(path: Path, colour=(200, 100, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    return path


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Writes an 8 x 8 image of one colour, and the folders above it."""
    return _write_image


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two classes, two images in train and one in valid and test, 8 x 8 PNG, named by number."""
    root = tmp_path / "nuts"
    for split in SPLITS:
        for label, name in enumerate(("almonds", "walnuts")):
            for number in range(2 if split == "train" else 1):
                colour = (100 * label, number, SPLITS.index(split))
                _write_image(root / split / name / f"{number}.png", colour)
    return root


@pytest.fixture
def kaggle_out_of_reach(tmp_path, monkeypatch) -> Path:
    """An empty download cache, and a proxy that refuses every connection; gives the cache."""
    cache = tmp_path / "kagglehub"
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(cache))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port, which nobody serves
    for name in ("no_proxy", "NO_PROXY", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    return cache
