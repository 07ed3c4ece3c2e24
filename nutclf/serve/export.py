"""The champion as files for phones and other runtimes, held against the network that it was."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from nutclf.errors import UserError
from nutclf.model import litert, portable
from nutclf.model.network import predict_pixels
from nutclf.serve.champion import champion_uri
from nutclf.serve.fidelity import Exported, compare
from nutclf.track.models import load_metadata, load_model
from nutclf.track.registry import CHAMPION, Registry
from nutclf.track.reload import LoadSplit
from nutclf.track.runs import Run, write_json
from nutclf.track.sealed import open_test
from nutclf.track.store import Store

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
    runner: Callable[[bytes], litert.Runner]


FORMATS = {
    "litert": (
        Kind("litert_float", "-float.tflite", portable.litert_float, litert.runner),
        Kind("litert_int8", "-int8.tflite", portable.litert_int8, litert.runner),
    ),
    "onnx": (Kind("onnx_float", ".onnx", portable.onnx_float, portable.onnx_runner),),
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
        blob = kind.convert(portable.without_resizing(model), few)
        file = _write(folder, f"{stem}{kind.suffix}", blob)
        found[kind.name] = compare(file, kind.runner(blob), unseen, expected)
    _log(run, folder / f"{stem}.json", metadata, found)
    return list(found.values())


def check_format(to: str) -> None:
    """Raises `UserError` for a format that is unknown, or needs what is not installed."""
    if to not in FORMATS:
        raise UserError(f"--to is {to!r}; allowed: {', '.join(FORMATS)}.")
    if to == "onnx":
        portable.require_onnx()


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
