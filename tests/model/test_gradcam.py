"""Grad-CAM against the formula, on networks small enough to do it by hand."""

import keras
import numpy as np
import pytest

from nutclf.model import cuts
from nutclf.model.gradcam import grad_cam

CHANNELS = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, -0.5]], np.float32)  # RGB to two maps
KERNEL = np.array([[2.0, -1.0], [-1.0, 3.0]], np.float32)  # maps to two classes


def network(nested, kernel=KERNEL):
    """A convolution of one pixel, pooling, softmax; as one model or as one within another."""
    pixels = keras.Input((4, 4, 3))
    maps = keras.layers.Conv2D(2, 1, use_bias=False, activation="relu", name="conv")
    body = keras.Model(pixels, maps(pixels))
    outer = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(body(outer) if nested else body.output)
    answer = keras.layers.Dense(2, activation="softmax", use_bias=True)
    model = keras.Model(outer if nested else pixels, answer(pooled))
    maps.set_weights([CHANNELS[None, None]])
    answer.set_weights([kernel, np.array([0.1, -0.2], np.float32)])
    return model


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).uniform(0, 255, (3, 4, 4, 3)).astype(np.float32)


def by_hand(pixels, class_id):
    """The gradient of a linear score is its kernel, spread evenly by the pooling."""
    maps = np.maximum(pixels @ CHANNELS, 0)
    heat = np.maximum((maps * KERNEL[:, class_id] / 16).sum(axis=-1), 0)
    return heat / heat.max(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("nested", [False, True])
def test_the_maps_are_those_of_the_paper(pixels, nested):
    ids = np.array([0, 1, 0])
    found = grad_cam(network(nested), pixels, ids)
    assert found.shape == (3, 4, 4)
    for image, class_id, heat in zip(pixels, ids, found, strict=True):
        np.testing.assert_allclose(heat, by_hand(image[None], class_id)[0], rtol=1e-5, atol=1e-6)


def test_a_channel_weighs_what_its_gradient_is_on_average(pixels):
    """Behind a flattening each place has a gradient of its own."""
    inputs = keras.Input((4, 4, 3))
    maps = keras.layers.Conv2D(2, 1, use_bias=False, activation="relu")
    flat = keras.layers.Flatten()(maps(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(flat))
    kernel = np.random.default_rng(1).uniform(size=(32, 2)).astype(np.float32)
    maps.set_weights([CHANNELS[None, None]])
    model.layers[-1].set_weights([kernel, np.zeros(2, np.float32)])
    weights = kernel.reshape(4, 4, 2, 2).mean(axis=(0, 1))[:, 1]
    heat = np.maximum((np.maximum(pixels @ CHANNELS, 0) * weights).sum(axis=-1), 0)
    expected = heat / heat.max(axis=(1, 2), keepdims=True)
    found = grad_cam(model, pixels, np.array([1, 1, 1]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_network_that_is_quite_sure_still_says_where(pixels):
    """The softmax's own gradient is exactly 0 there."""
    sure = network(False, KERNEL * 100)
    assert sure.predict_on_batch(pixels).max(axis=1).tolist() == [1, 1, 1]
    ids = sure.predict_on_batch(pixels).argmax(axis=1)
    np.testing.assert_allclose(grad_cam(sure, pixels, ids).max(axis=(1, 2)), 1, rtol=1e-6)


def test_where_nothing_speaks_for_a_class_the_map_is_dark(pixels):
    found = grad_cam(network(False, -np.abs(KERNEL)), pixels, np.array([0, 1, 0]))
    assert found.max() == 0


@pytest.mark.parametrize("tuned", [True, False])
def test_the_models_that_are_saved_can_be_asked(tiny_backbone, tuned):
    from nutclf.config import Ensemble, View
    from nutclf.model.network import Deployable, build_tail, without_probe

    tail = build_tail(cuts.trunk(tiny_backbone.model), 5, 0, 3, 0.5, 0)
    weights = {layer.name: layer.get_weights() for layer in tail.layers if layer.weights}
    linear = np.eye(40, 3, dtype=np.float32), np.zeros(3, np.float32)
    ensemble = Ensemble((View(0.875), View()), "logistic regression", 0.5)
    model = Deployable(tiny_backbone, 3).fill(weights if tuned else {}, 0.5, ensemble, linear, 5)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    found = grad_cam(without_probe(model), images, np.array([0, 2]))
    assert found.shape == (2, 3, 3)
    assert np.isfinite(found).all()
    assert tuned or found.max() == 1


def test_a_model_without_maps_is_refused():
    flat = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    with pytest.raises(ValueError, match="no layer that pools"):
        grad_cam(flat, np.zeros((1, 3)), np.array([0]))
    headless = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="dense"):
        grad_cam(headless, np.zeros((1, 4, 4, 3)), np.array([0]))
