"""Files for phones: made, run, and held against the network."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from nutclf.errors import UserError
from nutclf.model import prefix as litert
from nutclf.model.network import Deployable, predict_pixels
from nutclf.serve import export as portable

SIDE = 32


@pytest.fixture(scope="module")
def model(tiny_backbone):
    return Deployable(tiny_backbone, 3).model


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 200, (40, 1, 1, 3))
    return (colours + rng.integers(0, 56, (40, SIDE, SIDE, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def expected(model, pixels):
    return predict_pixels(model, pixels)


def answers(run, pixels):
    return np.concatenate([run(image[None]) for image in pixels])


def test_a_float_file_gives_the_networks_probabilities(model, pixels, expected):
    blob = portable.litert_float(portable.without_resizing(model), pixels)
    assert np.ptp(expected, axis=0).max() > 0.01, "images differ for the network"
    np.testing.assert_allclose(answers(litert.runner(blob), pixels), expected, atol=1e-5)


def test_an_int8_file_takes_bytes_as_they_are_and_has_no_other_operation(model, pixels, expected):
    blob = portable.litert_int8(portable.without_resizing(model), pixels)
    interpreter = Interpreter(model_content=blob)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    assert (entry["dtype"], entry["quantization"]) == (np.uint8, (1.0, 0))
    assert list(entry["shape"]) == [1, SIDE, SIDE, 3]
    kinds = [tensor["dtype"] for tensor in interpreter.get_tensor_details()]
    assert kinds.count(np.float32) == 1, "the probabilities alone"
    found = answers(litert.runner(blob), pixels)
    assert np.abs(found - expected).max() < 0.05
    assert np.abs(found - expected).max() > 1e-5, "otherwise nothing was rounded"


def test_the_network_without_resizing_is_the_network(model, pixels, expected):
    part = portable.without_resizing(model)
    assert part.input_shape == (None, SIDE, SIDE, 3)
    found = part(tf.cast(pixels, tf.float32), training=False)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_onnx_needs_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(portable, "find_spec", lambda name: None if name == "tf2onnx" else name)
    command = r"needs tf2onnx, which .*pip install onnx==\S+ tf2onnx=="
    with pytest.raises(UserError, match=command):
        portable.require_onnx()


# tf2onnx, on import, of a name that NumPy 2 dropped.
@pytest.mark.filterwarnings("ignore:In the future `np:FutureWarning")
def test_an_onnx_file_gives_the_networks_probabilities(model, pixels, expected):
    for name in portable.ONNX_PACKAGES:
        pytest.importorskip(name)
    blob = portable.onnx_float(portable.without_resizing(model), pixels)
    np.testing.assert_allclose(answers(portable.onnx_runner(blob), pixels), expected, atol=1e-5)
