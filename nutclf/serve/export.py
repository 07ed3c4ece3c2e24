"""The champion as files for phones and other runtimes, held against the network that it was."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from nutclf.errors import UserError
from nutclf.evaluate.intervals import Rate
from nutclf.model import prefix
from nutclf.model.network import predict_pixels
from nutclf.model.prefix import Runner
from nutclf.process import n_threads, native_messages_hidden
from nutclf.serve.answers import champion_uri
from nutclf.track.models import LoadSplit, load_metadata, load_model
from nutclf.track.registry import CHAMPION, Registry
from nutclf.track.runs import Run, write_json
from nutclf.track.sealed import open_test
from nutclf.track.store import Store

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
    return prefix.converter(
        lambda pixels: model(pixels, training=False), model.input_shape[1:], tf.float32
    )


_TIMED = 50  # photographs whose times count; earlier ones warm up


@dataclass(frozen=True)
class Exported:
    """A file, and how it compares with the Keras network.

    Attributes:
      file: where it lies.
      megabytes: its size, in millions of bytes.
      on_test, on_valid: photographs on which both give the same class.
      difference: largest difference of a probability, over both splits.
      milliseconds: median time of one photograph on this machine.
    """

    file: Path
    megabytes: float
    on_test: Rate
    on_valid: Rate
    difference: float
    milliseconds: float

    def line(self) -> str:
        """For a terminal."""
        return (
            f"{self.file}: {self.megabytes:.1f} MB, {self.milliseconds:.1f} ms a photograph here; "
            f"same class as Keras on {self.on_test} test and {self.on_valid} valid photographs, "
            f"probabilities within {self.difference:.2g}"
        )

    def metrics(self, kind: str) -> dict[str, float]:
        """As they are logged on the champion's run."""
        values = {
            "agreement": self.on_test.share,
            "valid_agreement": self.on_valid.share,
            "difference": self.difference,
            "megabytes": self.megabytes,
            "ms": self.milliseconds,
        }
        return {f"export_{kind}_{name}": value for name, value in values.items()}


def compare(
    file: Path,
    run: Runner,
    unseen: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
) -> Exported:
    """Runs a file on photographs, one by one.

    Args:
      file: what `run` runs.
      run: see `Runner`.
      unseen: photographs of "test" and "valid", each uint8 [N, S, S, 3], N >= 1.
      expected: the network's probabilities of them, each [N, n_classes].
    """
    same, difference, seconds = {}, 0.0, []
    for split, pixels in unseen.items():
        found = []
        for photograph in pixels:
            started = time.perf_counter()
            found.append(run(photograph[None])[0])
            seconds.append(time.perf_counter() - started)
        y_prob = np.stack(found)
        agreed = y_prob.argmax(axis=1) == expected[split].argmax(axis=1)
        same[split] = Rate(int(agreed.sum()), len(agreed))
        difference = max(difference, float(np.abs(y_prob - expected[split]).max()))
    middle = float(np.median(seconds[-_TIMED:])) * 1000
    return Exported(
        file, file.stat().st_size / 1e6, same["test"], same["valid"], difference, middle
    )


_CALIBRATED_ON = 200  # training photographs that int8 takes its ranges from


@dataclass(frozen=True)
class Kind:
    """One sort of file.

    Attributes:
      name: of its metrics, `export_<name>_agreement` and the like.
      suffix: of its file.
      convert: network without resizing, training photographs [N, S, S, 3] -> file.
      runner: file -> what runs it.
    """

    name: str
    suffix: str
    convert: Callable[[keras.Model, np.ndarray], bytes]
    runner: Callable[[bytes], prefix.Runner]


FORMATS = {
    "litert": (
        Kind("litert_float", "-float.tflite", litert_float, prefix.runner),
        Kind("litert_int8", "-int8.tflite", litert_int8, prefix.runner),
    ),
    "onnx": (Kind("onnx_float", ".onnx", onnx_float, onnx_runner),),
}


def export_champion(
    store: Store, name: str, to: str, folder: Path, load_split: LoadSplit, fingerprint: str
) -> list[Exported]:
    """Writes the champion's files, measures them, and logs both on its run.

    The test split's photographs are opened, and the opening counted; its labels are not looked at.

    Args:
      store: of the records.
      name: of the registered model.
      to: one of `FORMATS`.
      folder: made where it is missing.
      load_split: reads "train", "valid" and "test" at an image size.
      fingerprint: of the data that `load_split` reads.

    Raises:
      UserError: no such format, what it needs is not installed, no champion, other data than it was
        trained on, or a folder that cannot be written.
    """
    check_format(to)
    uri, version = champion_uri(store, name), Registry(store.client(), name).at(CHAMPION)
    run = Run(store.client(), version.run_id)
    _check_data(run, name, fingerprint)
    metadata, model = load_metadata(store, uri), load_model(store, uri)
    size = metadata["image_size"]
    train = load_split("train", size).pixels
    few = train[:: max(1, len(train) // _CALIBRATED_ON)]
    unseen = {
        "test": open_test(run, load_split, size).pixels,
        "valid": load_split("valid", size).pixels,
    }
    expected = {split: predict_pixels(model, pixels) for split, pixels in unseen.items()}
    found = {}
    stem = f"{name}-v{version.version}"
    for kind in FORMATS[to]:
        blob = kind.convert(without_resizing(model), few)
        file = _write(folder, f"{stem}{kind.suffix}", blob)
        found[kind.name] = compare(file, kind.runner(blob), unseen, expected)
    _log(run, folder / f"{stem}.json", metadata, found)
    return list(found.values())


def check_format(to: str) -> None:
    """Raises `UserError` for a format that is unknown, or needs what is not installed."""
    if to not in FORMATS:
        raise UserError(f"--to is {to!r}; allowed: {', '.join(FORMATS)}.")
    if to == "onnx":
        require_onnx()


def _check_data(run: Run, name: str, fingerprint: str) -> None:
    seen = run.client.get_run(run.run_id).data.tags["data_fingerprint"]
    if seen != fingerprint:
        raise UserError(
            f"The champion of {name!r} was trained on data with fingerprint {seen[:12]}, and these "
            f"have {fingerprint[:12]}; give its own data with DATA=."
        )


def _write(folder: Path, name: str, blob: bytes) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(blob)
    except OSError as error:
        raise UserError(
            f"The folder {str(folder)!r} cannot be written ({error.strerror}); name another with "
            "OUT=."
        ) from error
    return folder / name


def _log(run: Run, facts: Path, metadata: dict, found: dict[str, Exported]) -> None:
    """The files and what a program needs to read their answers become artifacts of the run."""
    kept = ("classes", "image_size", "temperature", "threshold")
    entry = {"pixels": "RGB, 0 to 255, [1, S, S, 3]; centred square, resized with antialiasing"}
    write_json(facts, {key: metadata[key] for key in kept if key in metadata} | entry)
    for kind, exported in found.items():
        run.metrics(exported.metrics(kind))
    for file in (facts, *(exported.file for exported in found.values())):
        run.client.log_artifact(run.run_id, str(file), "export")
