import os

import numpy as np
import pytest

from nutclf.errors import UserError
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
    assert (backbone.spec.image_size, backbone.spec.feature_width) == (side, width)


def test_the_small_network_has_the_layers_of_the_large_one(lively, mobilenetv2):
    small, large = lively.model.layers[1:], mobilenetv2.model.layers[1:]
    assert [x.name for x in small] == [x.name for x in large]
    assert lively.model.output_shape == (None, 3, 3, lively.spec.feature_width)


MINUS_ONE_TO_ONE = {0: (-1, -1, -1), 127.5: (0, 0, 0), 255: (1, 1, 1)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenetv2", MINUS_ONE_TO_ONE),
        ("mobilenetv2-drawn", MINUS_ONE_TO_ONE),
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


def test_weights_of_another_network_are_named_in_the_refusal(monkeypatch, tmp_path, lively):
    file = tmp_path / find_spec("mobilenetv2").weights_file
    lively.model.save_weights(file)
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=f"{file.name} does not hold the weights of MobileNetV2"):
        load_backbone("mobilenetv2")


def test_weights_from_a_folder_are_those_and_have_their_own_digest(
    monkeypatch, tmp_path, mobilenetv2
):
    mobilenetv2.model.save_weights(tmp_path / mobilenetv2.spec.weights_file)
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path))
    loaded = load_backbone("mobilenetv2")
    assert loaded.origin == mobilenetv2.spec.weights_file
    assert loaded.digest == mobilenetv2.digest
    assert load_backbone("mobilenetv2", "random").digest != mobilenetv2.digest


@pytest.mark.photographs
@pytest.mark.skipif(not WEIGHTS, reason="NUTCLF_WEIGHTS is not set")
def test_the_real_weights_load(monkeypatch):
    monkeypatch.setenv("NUTCLF_WEIGHTS", WEIGHTS)
    backbone = load_backbone("mobilenetv2")
    assert backbone.origin == BACKBONES["mobilenetv2"].weights_file
    variance = np.array(backbone.model.get_layer("Conv_1_bn").moving_variance)
    assert variance.std() > 0.01  # in a fresh network all are 1
