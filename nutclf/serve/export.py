"""The champion as files for phones and other runtimes, compared with the network itself."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from nutclf.config import Objective, View
from nutclf.errors import UserError
from nutclf.evaluate.intervals import Rate
from nutclf.model import prefix
from nutclf.model.network import predict, without_probe
from nutclf.model.prefix import Runner
from nutclf.model.tta import look
from nutclf.process import n_threads, native_messages_hidden
from nutclf.serve.answers import champion_uri
from nutclf.track.models import LoadSplit, load_metadata, load_model
from nutclf.track.promotion import open_test
from nutclf.track.registry import CHAMPION, Registry, best_run, model_uri
from nutclf.track.runs import Run, write_json
from nutclf.track.store import Store

# Tried with the pinned TensorFlow. 100 MB that only this needs, hence not among the requirements.
ONNX_PACKAGES = {"onnx": "1.23.2", "tf2onnx": "1.17.0", "onnxruntime": "1.32.0"}
_CALIBRATED_ON = 200  # training photographs that int8 takes its ranges from
_TIMED = 50  # photographs whose times count; earlier ones warm up
_ONE_VIEW = Objective("cv_accuracy_one_view", "maximize")

FORMATS = {  # by format: what its files are called among the metrics, and how their names end
    "litert": {"litert_float": "-float.tflite", "litert_int8": "-int8.tflite"},
    "onnx": {"onnx_float": ".onnx"},
}


def write(kind: str, model: keras.Model, file: Path, calibration: np.ndarray) -> None:
    """Writes a network of one view, [1, S, S, 3] of 0 to 255, as a file.

    The floats are float32, and ONNX takes any number of photographs. "litert_int8" is 8-bit
    integers throughout, its ranges from `calibration`, photographs like those to come, uint8
    [N, S, S, 3].
    """
    shape = model.input_shape[1:]
    if kind == "onnx_float":
        signature = [keras.InputSpec("float32", (None, *shape), name="pixels")]
        model.export(file, format="onnx", verbose=False, input_signature=signature)
        return
    # Of a graph of constants. keras.Model.export writes an equal file, but by way of a SavedModel:
    # five times slower, three minutes for DenseNet169.
    converter = prefix.converter(lambda pixels: model(pixels, training=False), shape)
    if kind == "litert_int8":
        images = calibration.astype(np.float32)
        images[0, 0, 0], images[0, -1, -1] = 0, 255  # a step is 1 then, and bytes go in unscaled
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.representative_dataset = lambda: ([image[None]] for image in images)
    with native_messages_hidden():  # it announces its types
        file.write_bytes(converter.convert())


def portable(whole: keras.Model, view: View) -> keras.Model:
    """The part of a model that goes to a phone: one view and no blend, from square to answer."""
    network = without_probe(whole)
    squares = keras.Input(network.input_shape[1:], name="squares")
    return keras.Model(squares, network(look(squares, view)), name="portable")


def runner(file: Path) -> Runner:
    """Runs a .tflite or an .onnx file on this machine's processors."""
    if file.suffix == ".tflite":
        return prefix.runner(file.read_bytes())
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = n_threads()
    session = InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda photograph: session.run(None, {name: photograph.astype(np.float32)})[0]


def check_format(to: str) -> None:
    """Raises `UserError` for a format that is unknown, or whose packages are not installed."""
    if to not in FORMATS:
        raise UserError(f"--to is {to!r}; allowed: {', '.join(FORMATS)}.")
    missing = [name for name in ONNX_PACKAGES if to == "onnx" and find_spec(name) is None]
    if missing:
        pins = " ".join(f"{name}=={version}" for name, version in ONNX_PACKAGES.items())
        raise UserError(
            f"ONNX needs {', '.join(missing)}, which are not installed; run "
            f".venv/bin/python -m pip install {pins}, or use --to litert."
        )


@dataclass(frozen=True)
class Exported:
    """A file, and how it compares with the Keras network."""

    file: Path
    on_test: Rate  # photographs on which both give the same class
    on_valid: Rate
    difference: float  # largest, of a probability, over both splits
    milliseconds: float  # median of one photograph on this machine

    @property
    def megabytes(self) -> float:
        return self.file.stat().st_size / 1e6

    def line(self) -> str:
        return (
            f"{self.file}: {self.megabytes:.1f} MB, {self.milliseconds:.1f} ms a photograph here; "
            f"same class as Keras on {self.on_test} test and {self.on_valid} valid photographs, "
            f"probabilities within {self.difference:.2g}"
        )


def compare(
    file: Path, run: Runner, unseen: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> Exported:
    """Runs a file on the photographs of "test" and "valid", uint8 [N, S, S, 3], one by one, against
    the network's probabilities of them, `expected` [N, n_classes]."""
    same, difference, seconds = {}, 0.0, []
    for split, pixels in unseen.items():
        agreed = 0
        for photograph, theirs in zip(pixels, expected[split], strict=True):
            started = time.perf_counter()
            ours = run(photograph[None])[0]
            seconds.append(time.perf_counter() - started)
            agreed += int(ours.argmax() == theirs.argmax())
            difference = max(difference, float(np.abs(ours - theirs).max()))
        same[split] = Rate(agreed, len(pixels))
    milliseconds = float(np.median(seconds[-_TIMED:])) * 1000
    return Exported(file, same["test"], same["valid"], difference, milliseconds)


def best_of_one_view(client: MlflowClient, champion: MlflowRun) -> MlflowRun:
    """The champion, or the probe of its study that has more held-out images right with one view."""
    where, study = champion.info.experiment_id, champion.data.tags["study_name"]
    probe = best_run(client, where, study, _ONE_VIEW, "probe")
    # Of equal ones the champion; where all were judged on the valid split none has the metric.
    runs = [champion] if probe is None else [champion, probe]
    return max(runs, key=lambda run: run.data.metrics.get(_ONE_VIEW.metric, 0))


def export_champion(
    store: Store,
    name: str,
    to: str,
    folder: Path,
    load_split: LoadSplit,
    fingerprint: str,
    say: Callable[[str], None],
) -> list[Exported]:
    """Writes the champion for phones, in one of `FORMATS`; measures the files, and logs both.

    They are of one view, see `best_of_one_view`, and stay with the champion's run. The test split's
    photographs are opened, and the opening counted; its labels are not used. Raises `UserError`: no
    such format, its packages are missing, no champion, data of another `fingerprint` than it was
    trained on, or a folder that cannot be written.
    """
    check_format(to)
    uri, version = champion_uri(store, name), Registry(store.client(), name).at(CHAMPION)
    run = Run(store.client(), version.run_id)
    champion = run.client.get_run(run.run_id)
    seen = champion.data.tags["data_fingerprint"]
    if seen != fingerprint:
        raise UserError(
            f"The champion of {name!r} was trained on data with fingerprint {seen[:12]}, and these "
            f"have {fingerprint[:12]}; give its own data with DATA=."
        )
    best = best_of_one_view(run.client, champion)
    uri = uri if best is champion else model_uri(run.client, best)
    metadata = load_metadata(store, uri)
    view = View(**metadata.get("one_view", {}))
    model = portable(load_model(store, uri), view)
    share = best.data.metrics.get(_ONE_VIEW.metric)
    judged = "" if share is None else f", {share:.3f} cross-validated"
    say(f"One view ({view}) and no blend: {best.info.run_name}{judged}")
    size, stem = metadata["image_size"], f"{name}-v{version.version}"
    kept = ("classes", "image_size", "temperature", "threshold", "one_view")
    entry = {"pixels": "RGB, 0 to 255, [1, S, S, 3]; centred square, resized with antialiasing"}
    facts = {key: metadata[key] for key in kept if key in metadata} | entry
    facts["model"] = best.info.run_name
    try:
        write_json(folder / f"{stem}.json", facts)
    except OSError as error:
        problem = f"The folder {str(folder)!r} cannot be written ({error.strerror})"
        raise UserError(f"{problem}; name another with OUT=.") from error
    train = load_split("train", size).pixels
    calibration = train[:: max(1, len(train) // _CALIBRATED_ON)]
    test, valid = open_test(run, load_split, size), load_split("valid", size)
    unseen = {"test": test.pixels, "valid": valid.pixels}
    expected = {split: predict(model, pixels) for split, pixels in unseen.items()}
    exported = []
    for kind, suffix in FORMATS[to].items():
        file = folder / f"{stem}{suffix}"
        write(kind, model, file, calibration)
        found = compare(file, runner(file), unseen, expected)
        figures = {
            f"export_{kind}_agreement": found.on_test.share,
            f"export_{kind}_valid_agreement": found.on_valid.share,
            f"export_{kind}_difference": found.difference,
            f"export_{kind}_megabytes": found.megabytes,
            f"export_{kind}_ms": found.milliseconds,
        }
        run.metrics(figures)
        say(found.line())
        exported.append(found)
    for file in (folder / f"{stem}.json", *(each.file for each in exported)):
        run.client.log_artifact(run.run_id, str(file), "export")
    return exported
