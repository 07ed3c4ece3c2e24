"""The frozen part of a network as one constant graph: the fastest way through it on a processor."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)

from nutclf.model import cuts
from nutclf.model.backbones import BackboneSpec
from nutclf.model.network import scaling_layer

BATCH_SIZE = 16
"""Images a call. The fastest of 8, 16, 32, 64 on two cores: activations stay in the cache."""

Prefix = Callable[[np.ndarray], np.ndarray]


def pixels_to_cut(spec: BackboneSpec, trunk: keras.Model, cut: int) -> Prefix:
    """Raw pixels, uint8 [B, S, S, 3], to the output of layer `cut` of `trunk`, float32.

    Cut 0 is the input itself: the result is the scaled pixels.
    """
    scaling = scaling_layer(spec)
    part = cuts.between(trunk, 0, cut) if cut else None

    def forward(pixels: tf.Tensor) -> tf.Tensor:
        scaled = scaling(tf.cast(pixels, tf.float32))
        return part(scaled, training=False) if part else scaled

    return _constant_graph(forward, tf.TensorSpec((None, *trunk.input_shape[1:]), tf.uint8))


def cut_to_cut(trunk: keras.Model, start: int, stop: int) -> Prefix:
    """The output of layer `start` of `trunk`, any float dtype, to the output of layer `stop`."""
    part = cuts.between(trunk, start, stop)
    shape = (None, *trunk.layers[start].output.shape[1:])
    frozen = _constant_graph(lambda x: part(x, training=False), tf.TensorSpec(shape, tf.float32))
    return lambda features: frozen(np.asarray(features, np.float32))


def _constant_graph(forward: Callable[[tf.Tensor], tf.Tensor], spec: tf.TensorSpec) -> Prefix:
    """Traces `forward` once and turns its variables into constants.

    With constants, TensorFlow's graph optimiser folds BatchNormalization into the convolutions.
    """
    traced = tf.function(forward, jit_compile=False).get_concrete_function(spec)
    frozen = convert_variables_to_constants_v2(traced)

    def run(batch: np.ndarray) -> np.ndarray:
        result = frozen(tf.constant(batch))
        return (result[0] if isinstance(result, (list, tuple)) else result).numpy()

    return run
