"""A machine of a cluster: it uses what it has, is sent what it lacks, and refuses what differs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nutclf.config import OBJECTIVES, Recipe, SearchSpace, StudyConfig
from nutclf.errors import UserError
from nutclf.search.driver import prepare
from nutclf.train import jobs, node
from nutclf.train.jobs import FitJob, run

CONFIG = StudyConfig(
    "node",
    "mobilenetv2",
    SearchSpace(n_unfrozen=(0,)),
    OBJECTIVES["valid"],
    baseline=Recipe(n_unfrozen=0, epochs=1, lr_schedule="constant"),
    n_views=1,
    image_size=32,
)


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory) -> Path:
    """A folder of weights that only the driver has."""
    from nutclf.model.backbones import find_spec

    spec, folder = find_spec("mobilenetv2", 32), tmp_path_factory.mktemp("weights")
    spec.build().save_weights(folder / spec.weights_file)
    return folder


@pytest.fixture
def setting(source, store, features, own_weights, monkeypatch):
    """A study as its driver knows it."""
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(own_weights))
    return prepare(CONFIG, source, store, features, print, "pretrained")[0]


@pytest.fixture
def elsewhere(setting, tmp_path, monkeypatch):
    """The study as it reaches a machine that has nothing, and what its driver would send."""
    parcel = node.pack(setting)
    monkeypatch.setattr(jobs, "_bench", None)
    monkeypatch.delenv("NUTCLF_WEIGHTS")
    monkeypatch.setenv("NUTCLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("nutclf.model.backbones._from_keras", no_network)
    return replace(setting, data=replace(setting.data, root=Path("/gone"))), parcel


def no_network(spec, model):
    from nutclf.model.backbones import NoWeights

    raise NoWeights("no network")


def test_what_a_machine_lacks_is_sent_and_gives_the_same_fit(setting, elsewhere, tmp_path):
    there, parcel = elsewhere
    assert not any(path.startswith("test/") for path in parcel.images), "that split stays sealed"
    with pytest.raises(node.Lacking, match="no images"):
        node.at_home(there, None, print)
    home = node.at_home(there, parcel, print)
    assert tmp_path / "cache" in home.data.root.parents
    assert home.features.folder == tmp_path / "cache" / "features"
    ours, theirs = (run(FitJob(s, CONFIG.baseline, 0), print, print) for s in (setting, home))
    np.testing.assert_array_equal(ours.valid, theirs.valid)
    again = node.at_home(there, None, print)  # the next process finds what the first was sent
    assert again.data.root == home.data.root


def test_other_images_or_weights_that_a_machine_names_are_refused(
    elsewhere, own_weights, tmp_path, monkeypatch
):
    there, parcel = elsewhere
    monkeypatch.setenv("NUTCLF_DATA", str(tmp_path))
    with pytest.raises(UserError, match=f"NUTCLF_DATA is {tmp_path}, which lacks images"):
        node.at_home(there, parcel, print)
    monkeypatch.delenv("NUTCLF_DATA")
    from nutclf.model.backbones import find_spec

    other = tmp_path / "other"
    other.mkdir()
    spec = find_spec("mobilenetv2", 32)
    spec.build().save_weights(other / spec.weights_file)
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(other))
    with pytest.raises(UserError, match="This worker has other weights of mobilenetv2"):
        node.at_home(there, parcel, print)


def test_too_many_images_are_not_sent(setting, monkeypatch):
    monkeypatch.setattr(node, "MAX_PARCEL_BYTES", 1000)
    with pytest.raises(UserError, match=r"too much to send.*NUTCLF_DATA"):
        node.pack(setting)
