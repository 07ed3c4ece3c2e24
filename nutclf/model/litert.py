"""LiteRT: a network as a graph of constants, converted and run on this machine's processors."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)

from nutclf.data.quiet import native_messages_hidden
from nutclf.model.threads import n_threads

Forward = Callable[[tf.Tensor], tf.Tensor]
Runner = Callable[[np.ndarray], np.ndarray]
"""One image [1, ...] to what the network makes of it, [1, ...]."""


def constant_graph(forward: Forward, shape: Sequence[int | None], dtype: tf.DType):
    """`forward` as a graph that holds its weights itself; `shape` is that of its one input."""
    traced = tf.function(forward, jit_compile=False).get_concrete_function(
        tf.TensorSpec(shape, dtype)
    )
    return convert_variables_to_constants_v2(traced)


def converter(forward: Forward, shape: Sequence[int], dtype: tf.DType) -> tf.lite.TFLiteConverter:
    """Makes a .tflite file of `forward`, for one image of `shape` at a time."""
    graph = constant_graph(forward, (1, *shape), dtype)
    # The graph holds its constants itself: there is nothing that the module has to keep alive.
    return tf.lite.TFLiteConverter.from_concrete_functions([graph], tf.Module())


def runner(blob: bytes) -> Runner:
    """Runs a .tflite file; what it is handed becomes the type that the file takes."""
    from ai_edge_litert.interpreter import Interpreter

    with native_messages_hidden():  # it announces its kernels
        interpreter = Interpreter(model_content=blob, num_threads=n_threads())
        interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    index, dtype = entry["index"], entry["dtype"]

    def run(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(index, image.astype(dtype, copy=False))
        interpreter.invoke()
        return interpreter.get_tensor(exit_)

    return run
