"""A store of the test's own with a champion in it."""

import pytest


@pytest.fixture
def kept(with_champion, copy_store, tmp_path):
    """The store."""
    return copy_store(with_champion.folder, tmp_path / "store")


@pytest.fixture
def model(kept):
    """The folder of the champion's model."""
    (folder,) = kept.folder.glob("artifacts/nutclf/models/m-*/artifacts")
    return folder
