import os

import keras
import numpy as np
import pytest

from nutclf.errors import UserError
from nutclf.model import backbones
from nutclf.model.backbones import (
    BACKBONES,
    NoWeights,
    find_spec,
    load_backbone,
    load_classifier,
)
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
    with pytest.raises(UserError, match=r"'vgg15'; keras\.applications has convnextbase, "):
        load_backbone("vgg15", "random")


# What keras.applications documents of each: EfficientNetV2 scales inside, ResNet50 came from Caffe.
@pytest.mark.parametrize(
    ("name", "size", "scale", "offset", "bgr"),
    [
        ("efficientnetv2b0", 224, 1, 0, False),
        ("efficientnetv2s", 384, 1, 0, False),
        ("mobilenetv3large", 224, 1, 0, False),
        ("xception", 299, 1 / 127.5, -1, False),
        ("resnet50", 224, 1, -103.939, True),
        ("densenet121", 224, 1 / (255 * 0.229), -0.485 / 0.229, False),
    ],
)
def test_any_network_of_keras_applications_is_known_by_its_name(name, size, scale, offset, bgr):
    spec = find_spec(name)
    assert (spec.image_size, spec.bgr) == (size, bgr)
    assert spec.scale[0] == pytest.approx(scale, rel=1e-5)
    assert spec.offset[0] == pytest.approx(offset, rel=1e-4, abs=1e-6)
    assert getattr(keras.applications, spec.application).__name__.lower() == name


def test_channels_come_in_the_order_that_the_network_takes():
    red = np.zeros((1, 2, 2, 3), np.float32) + np.float32([200, 10, 20])
    scaled = np.asarray(scaling_layer(find_spec("resnet50"))(red))
    expected = keras.applications.resnet50.preprocess_input(red.copy())
    np.testing.assert_allclose(scaled, expected, atol=1e-3)


def test_an_image_too_small_for_a_network_is_refused():
    with pytest.raises(UserError, match=r"xception cannot be built for images of 32 pixels"):
        load_backbone("xception", "random", 32)


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

    def fail(spec, what):
        raise NoWeights(f"Keras could not fetch {what} (no network)")

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


def test_without_weights_and_network_it_is_said_what_is_missing(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path))
    with pytest.raises(NoWeights) as caught:
        load_classifier(find_spec("mobilenetv2"))
    assert f"{tmp_path} holds no mobilenet_v2_1.0_224.weights.h5" in str(caught.value)
    assert str(caught.value).endswith("put mobilenet_v2_1.0_224.weights.h5 into NUTCLF_WEIGHTS.")


def test_a_file_that_holds_something_else_is_a_mistake_not_an_absence(monkeypatch, tmp_path):
    file = tmp_path / "mobilenet_v2_1.0_224.weights.h5"
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="does not hold the weights of 1000-class Mob") as caught:
        load_classifier(find_spec("mobilenetv2"))
    assert not isinstance(caught.value, NoWeights)


@pytest.mark.photographs
@pytest.mark.skipif(not WEIGHTS, reason="NUTCLF_WEIGHTS is not set")
def test_the_real_weights_load(monkeypatch):
    monkeypatch.setenv("NUTCLF_WEIGHTS", WEIGHTS)
    backbone = load_backbone("mobilenetv2")
    assert backbone.origin == BACKBONES["mobilenetv2"].weights_file
    variance = np.array(backbone.model.get_layer("Conv_1_bn").moving_variance)
    assert variance.std() > 0.01  # in a fresh network all are 1


@pytest.mark.photographs
@pytest.mark.skipif(not WEIGHTS, reason="NUTCLF_WEIGHTS is not set")
def test_the_real_classifier_is_the_real_backbone_with_a_top(monkeypatch):
    monkeypatch.setenv("NUTCLF_WEIGHTS", WEIGHTS)
    classifier, backbone = (
        load_classifier(find_spec("mobilenetv2")),
        load_backbone("mobilenetv2").model,
    )
    for layer in backbone.layers[1:]:
        for mine, its in zip(
            layer.get_weights(), classifier.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(mine, its)
