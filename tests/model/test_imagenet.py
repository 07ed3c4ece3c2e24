import os

import keras
import numpy as np
import pytest

from nutclf.errors import UserError
from nutclf.model.backbones import find_spec
from nutclf.model.imagenet import (
    NoClassifier,
    class_names,
    classifier_file,
    classify,
    load_classifier,
)

WEIGHTS = os.environ.get("NUTCLF_WEIGHTS")  # read here: no test sees the setting
MOBILENETV2 = find_spec("mobilenetv2")


def test_the_thousand_names_stand_at_their_published_indices():
    names = class_names()
    assert len(names) == 1000
    for index, name in {
        0: "tench", 1: "goldfish", 207: "golden retriever", 281: "tabby", 404: "airliner",
        551: "face powder", 850: "teddy", 943: "cucumber", 954: "banana", 988: "acorn",
        999: "toilet tissue",
    }.items():  # fmt: skip
        assert names[index] == name


def test_only_crane_and_maillot_come_twice():
    names = class_names()
    assert sorted({name for name in names if names.count(name) > 1}) == ["crane", "maillot"]
    assert [i for i, name in enumerate(names) if name == "crane"] == [134, 517], "bird, machine"
    assert all(name == name.strip() and name for name in names)


def test_the_file_is_that_of_the_backbone_with_its_top():
    assert classifier_file(MOBILENETV2) == "mobilenet_v2_1.0_224.weights.h5"
    assert classifier_file(find_spec("densenet169")) == "densenet169.weights.h5"


def test_without_weights_and_network_it_is_said_what_is_missing(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path))
    with pytest.raises(NoClassifier) as caught:
        load_classifier(MOBILENETV2)
    assert f"{tmp_path} holds no mobilenet_v2_1.0_224.weights.h5" in str(caught.value)
    assert str(caught.value).endswith("put mobilenet_v2_1.0_224.weights.h5 into NUTCLF_WEIGHTS.")


def test_a_file_that_holds_something_else_is_a_mistake_not_an_absence(monkeypatch, tmp_path):
    file = tmp_path / classifier_file(MOBILENETV2)
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="does not hold the weights of 1000-class Mob") as caught:
        load_classifier(MOBILENETV2)
    assert not isinstance(caught.value, NoClassifier)


@pytest.fixture(scope="module")
def brightest():
    """Names the channel that is brightest once scaled, and every class above 2 never."""
    pixels = keras.Input((96, 96, 3))
    means = keras.layers.GlobalAveragePooling2D()(pixels)
    scores = keras.layers.Dense(1000, use_bias=False)
    model = keras.Model(pixels, scores(means))
    scores.set_weights([np.eye(3, 1000, dtype=np.float32)])
    return model


def test_every_image_is_named_by_its_own_largest_score(brightest):
    """20 images, more than one batch; the first of them wins in one channel alone."""
    pixels = np.full((20, 96, 96, 3), 128, np.uint8)
    wanted = np.arange(20) % 3
    for i, channel in enumerate(wanted):
        pixels[i, :, :, channel] = 200
    assert classify(MOBILENETV2, brightest, pixels).tolist() == wanted.tolist()


def test_pixels_are_scaled_before_the_network_sees_them(brightest):
    """Darkness is -1 to this network: the class whose score is always 0 wins."""
    dark = np.zeros((1, 96, 96, 3), np.uint8)
    assert classify(MOBILENETV2, brightest, dark).tolist() == [3]


@pytest.mark.photographs
@pytest.mark.skipif(not WEIGHTS, reason="NUTCLF_WEIGHTS is not set")
def test_the_real_classifier_is_the_real_backbone_with_a_top(monkeypatch):
    from nutclf.model.backbones import load_backbone

    monkeypatch.setenv("NUTCLF_WEIGHTS", WEIGHTS)
    classifier, backbone = load_classifier(MOBILENETV2), load_backbone("mobilenetv2").model
    for layer in backbone.layers[1:]:
        for mine, its in zip(
            layer.get_weights(), classifier.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(mine, its)
