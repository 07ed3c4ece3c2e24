"""The frozen part of a network, compiled: the fastest way through it on the machine at hand."""

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from nutclf.model import cuts
from nutclf.model.backbones import BackboneSpec
from nutclf.model.network import read_levels, scaling_layer
from nutclf.process import has_gpu, n_threads, native_messages_hidden

Forward = Callable[[tf.Tensor], tf.Tensor]
Runner = Callable[[np.ndarray], np.ndarray]
"""Images [B, ...] to what the network makes of them, [B, ...]; a .tflite file takes one."""


def _constant_graph(forward: Forward, shape: Sequence[int | None]):
    traced, signature = tf.function(forward, jit_compile=False), tf.TensorSpec(shape, tf.float32)
    return convert_variables_to_constants_v2(traced.get_concrete_function(signature))


def converter(forward: Forward, shape: Sequence[int]) -> tf.lite.TFLiteConverter:
    """Makes a .tflite file of `forward`, for one float32 image of `shape` at a time."""
    graph = _constant_graph(forward, (1, *shape))
    # The graph holds its constants itself: there is nothing that the module has to keep alive.
    return tf.lite.TFLiteConverter.from_concrete_functions([graph], tf.Module())


def runner(blob: bytes) -> Runner:
    """Runs a .tflite file; what it is handed becomes the type that the file takes."""
    from ai_edge_litert.interpreter import Interpreter

    with native_messages_hidden():  # it announces its kernels
        interpreter = Interpreter(model_content=blob, num_threads=n_threads())
        interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(taken["index"], image.astype(taken["dtype"], copy=False))
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])

    return run


def pixels_to_cut(spec: BackboneSpec, trunk: keras.Model, cut: int) -> Runner:
    """Raw pixels [B, S, S, 3] to the output of layer `cut`, float32; 0 only scales them."""
    scaling, part = scaling_layer(spec), cuts.between(trunk, 0, cut) if cut else None

    def forward(pixels: tf.Tensor) -> tf.Tensor:
        scaled = scaling(pixels)
        return part(scaled, training=False) if part else scaled

    return _compiled(forward, trunk.input_shape[1:])


def pixels_to_row(spec: BackboneSpec, trunk: keras.Model, cut: int) -> Runner:
    """Raw pixels [B, S, S, 3] to the output of layer `cut`, flat, and what a probe reads behind it.

    One pass through the network gives both, float32 [B, R].
    """
    read, _ = read_levels([trunk.layers[level].output for level in cuts.levels(trunk)])
    part, scaling = keras.Model(trunk.input, [trunk.layers[cut].output, read]), scaling_layer(spec)

    def forward(pixels: tf.Tensor) -> tf.Tensor:
        at_cut, features = part(scaling(pixels), training=False)
        return tf.concat([tf.reshape(at_cut, (-1, math.prod(at_cut.shape[1:]))), features], axis=1)

    return _compiled(forward, trunk.input_shape[1:])


def cut_to_cut(trunk: keras.Model, start: int, stop: int) -> Runner:
    """The output of layer `start` of `trunk`, any float dtype, to the output of layer `stop`."""
    part = cuts.between(trunk, start, stop)
    shape = trunk.layers[start].output.shape[1:]
    return _compiled(lambda x: part(x, training=False), shape)


def batch_size() -> int:
    """Images a call: many feed a GPU, few stay in a processor's cache."""
    return 128 if has_gpu() else 16


def compiler() -> str:
    """Which compiler serves here; results differ between the two by rounding."""
    return "tensorflow" if has_gpu() else "litert"


def _compiled(forward: Forward, shape: Sequence[int]) -> Runner:
    """A graph of constants: its compiler folds BatchNormalization into the convolutions.

    On a processor LiteRT's kernels are about twice as fast as TensorFlow's, one image at a time:
    the activations of one image stay in the processor's cache.
    """
    if compiler() == "tensorflow":
        graph = _constant_graph(forward, (None, *shape))
        return lambda batch: graph(tf.cast(batch, tf.float32))[0].numpy()
    one = runner(converter(forward, shape).convert())
    return lambda batch: np.concatenate([one(image[np.newaxis]) for image in batch])
