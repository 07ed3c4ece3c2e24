"""A network in the formats of phones and other runtimes: LiteRT in float and int8, and ONNX.

All take photographs cropped and resized already, RGB 0 to 255, [1, S, S, 3]: a phone has its own
way to resize, and LiteRT has no operation for the antialiased one.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from nutclf.data.quiet import native_messages_hidden
from nutclf.errors import UserError
from nutclf.model import litert
from nutclf.model.litert import Runner
from nutclf.model.threads import n_threads

# Seen beside the pinned TensorFlow. 100 MB that only this needs, hence not among the requirements.
ONNX_PACKAGES = {"onnx": "1.23.2", "tf2onnx": "1.17.0", "onnxruntime": "1.32.0"}


def without_resizing(model: keras.Model) -> keras.Model:
    """The network from where its photographs are resized: [B, S, S, 3], 0 to 255."""
    return keras.Model(model.get_layer("scaling").input, model.output, name="portable")


def litert_float(model: keras.Model, images: np.ndarray) -> bytes:
    """A .tflite file of float32 pixels and weights; `images` are not needed."""
    return _converter(model).convert()


def litert_int8(model: keras.Model, images: np.ndarray) -> bytes:
    """A .tflite file whose every operation is of 8-bit integers, pixels uint8 as they are.

    Args:
      model: from `without_resizing`.
      images: uint8 [N, S, S, 3]; the ranges of all activations are taken from them, so they must
        be like what the network will see. Two hundred are enough.
    """
    images = images.copy()
    images[0, 0, 0], images[0, -1, -1] = 0, 255  # then a byte is a step, and bytes go in unscaled
    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.representative_dataset = lambda: (
        [image[None].astype(np.float32)] for image in images
    )
    with native_messages_hidden():  # it announces its types
        return converter.convert()


def onnx_float(model: keras.Model, images: np.ndarray) -> bytes:
    """An .onnx file of float32 pixels and weights; `images` are not needed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        shape = (None, *model.input_shape[1:])
        signature = [keras.InputSpec("float32", shape, name="pixels")]
        model.export(file, format="onnx", verbose=False, input_signature=signature)
        return file.read_bytes()


def onnx_runner(blob: bytes) -> Runner:
    """Runs an .onnx file on this machine's processors."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = n_threads()
    session = InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda photograph: session.run(None, {name: photograph.astype(np.float32)})[0]


def require_onnx() -> None:
    """Raises `UserError` with the command that installs what ONNX needs, where it is missing."""
    if missing := [name for name in ONNX_PACKAGES if find_spec(name) is None]:
        pins = " ".join(f"{name}=={version}" for name, version in ONNX_PACKAGES.items())
        raise UserError(
            f"ONNX needs {', '.join(missing)}, which are not installed; run "
            f".venv/bin/python -m pip install {pins}, or use --to litert."
        )


def _converter(model: keras.Model) -> tf.lite.TFLiteConverter:
    # Of constants: the ranges of int8 cannot be taken from a graph that reads variables.
    return litert.converter(
        lambda pixels: model(pixels, training=False), model.input_shape[1:], tf.float32
    )
