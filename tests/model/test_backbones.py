import os

import numpy as np
import pytest

from nutclf.errors import UserError
from nutclf.model import backbones
from nutclf.model.backbones import BACKBONES, find_spec, load_backbone
from nutclf.model.network import scaling_layer

WEIGHTS = os.environ.get("NUTCLF_WEIGHTS")  # read here: no test sees the setting


@pytest.mark.parametrize(
    ("name", "layers", "side", "width"),
    [("mobilenetv2", 154, 224, 1280), ("densenet169", 595, 224, 1664)],
)
def test_the_networks_have_their_published_sizes(name, layers, side, width, request):
    backbone = request.getfixturevalue(name)
    assert len(backbone.model.layers) == layers
    assert backbone.model.input_shape == (None, side, side, 3)
    assert backbone.model.output_shape == (None, side // 32, side // 32, width)
    assert backbone.spec.image_size == side


def test_another_image_size_is_the_same_network(lively, mobilenetv2):
    assert lively.model.output_shape == (None, 3, 3, 1280)
    assert [x.name for x in lively.model.layers[1:]] == [
        x.name for x in mobilenetv2.model.layers[1:]
    ]


MINUS_ONE_TO_ONE = {0: (-1, -1, -1), 127.5: (0, 0, 0), 255: (1, 1, 1)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenetv2", MINUS_ONE_TO_ONE),
        (
            "densenet169",
            {
                # By hand: (grey / 255 - mean) / deviation of ImageNet's red, green, blue.
                0: (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
                127.5: (0.0655, 0.1964, 0.4178),
                255: (2.2489, 2.4286, 2.6400),
            },
        ),
    ],
)
def test_grey_is_scaled_to_what_the_network_was_pretrained_on(name, expected):
    layer = scaling_layer(find_spec(name))
    for grey, channels in expected.items():
        scaled = np.asarray(layer(np.full((1, 2, 2, 3), grey, np.float32)))
        np.testing.assert_allclose(scaled[0, 1, 0], channels, atol=1e-4)


def test_an_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="'vgg16'; known are densenet169, mobilenetv2"):
        load_backbone("vgg16", "random")


def test_unknown_weights_are_refused_with_the_allowed_ones():
    with pytest.raises(UserError, match="'imagenet'; allowed: pretrained, random"):
        load_backbone("mobilenetv2", "imagenet")


def test_a_folder_that_is_not_there_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nowhere', which is not a folder"):
        load_backbone("mobilenetv2")


def test_a_weights_file_cut_short_is_named_in_the_refusal(monkeypatch, tmp_path):
    file = tmp_path / find_spec("mobilenetv2").weights_file
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=f"{file.name} does not hold the weights of MobileNetV2"):
        load_backbone("mobilenetv2")


def test_weights_of_another_network_are_named_in_the_refusal(monkeypatch, tmp_path, tiny_backbone):
    file = tmp_path / find_spec("mobilenetv2").weights_file
    tiny_backbone.model.save_weights(file)
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=f"{file.name} does not hold the weights of MobileNetV2"):
        load_backbone("mobilenetv2")


@pytest.fixture
def own_weights(monkeypatch, tmp_path, mobilenetv2):
    """NUTCLF_WEIGHTS with weights that are not the shipped ones; their digest."""
    mobilenetv2.model.save_weights(tmp_path / mobilenetv2.spec.weights_file)
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path))
    return mobilenetv2.digest


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Keras has nothing in its cache, and reaches nobody."""

    def fail(build):
        raise OSError("no network")

    monkeypatch.setattr(backbones, "fetch_from_keras", fail)


def test_weights_from_a_folder_come_first_and_have_their_own_digest(own_weights):
    loaded = load_backbone("mobilenetv2")
    assert loaded.origin == find_spec("mobilenetv2").weights_file
    assert loaded.digest == own_weights


def test_random_weights_are_the_same_in_every_process(mobilenetv2):
    assert load_backbone("mobilenetv2", "random").digest == mobilenetv2.digest


def test_the_shipped_weights_come_last_and_are_said_in_one_line(no_network, lively):
    said = []
    loaded = load_backbone("mobilenetv2", image_size=96, say=said.append)
    assert loaded.digest == lively.digest
    assert loaded.origin == "shipped mobilenet_v2_1.0_224_no_top.npz"
    (line,) = said
    assert "no network" in line
    assert "NUTCLF_WEIGHTS" in line


def test_a_network_that_none_are_shipped_of_is_refused(no_network):
    with pytest.raises(UserError, match=r"No weights for densenet169.*no network.*NUTCLF_WEIGHTS"):
        load_backbone("densenet169")


def test_a_study_goes_on_with_the_weights_it_began_with(own_weights, no_network, lively):
    """Begun with the shipped ones; then a person sets NUTCLF_WEIGHTS."""
    loaded = load_backbone("mobilenetv2", image_size=96, digest=lively.digest)
    assert loaded.digest == lively.digest


def test_weights_that_are_nowhere_any_more_are_not_made_up(own_weights, no_network):
    """Whoever compares digests refuses these, and lists both."""
    assert load_backbone("mobilenetv2", digest="0" * 64).digest == own_weights


@pytest.mark.photographs
@pytest.mark.skipif(not WEIGHTS, reason="NUTCLF_WEIGHTS is not set")
def test_the_real_weights_load(monkeypatch):
    monkeypatch.setenv("NUTCLF_WEIGHTS", WEIGHTS)
    backbone = load_backbone("mobilenetv2")
    assert backbone.origin == BACKBONES["mobilenetv2"].weights_file
    variance = np.array(backbone.model.get_layer("Conv_1_bn").moving_variance)
    assert variance.std() > 0.01  # in a fresh network all are 1
