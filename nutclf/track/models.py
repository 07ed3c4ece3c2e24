"""Models in MLflow: logged under their run, opened again by address.

A model has two interfaces: stock Keras for pixels, which `mlflow.keras.load_model` opens, and
MLflow's own for photographs, which `mlflow.pyfunc.load_model` and MLflow's scoring server open.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
from mlflow import pyfunc
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Map, Object, Property
from yaml import YAMLError

from nutclf.data.folder import Split
from nutclf.errors import UserError
from nutclf.evaluate.familiarity import Familiarity
from nutclf.evaluate.predictions import prediction_table
from nutclf.model.network import predict
from nutclf.track.evaluation import stored_predictions
from nutclf.track.runs import Run
from nutclf.track.store import Store

RELOAD_TOLERANCE = 1e-6  # in probability, between the model that was logged and the one reloaded

LoadSplit = Callable[[str, int], Split]
"""Reads a split ("train", "valid", "test") at an image size."""

_FILE, _KNOWN = "model.keras", "familiarity.npz"
_NEEDED = ("keras", "tensorflow", "pillow")  # by either interface, beside mlflow itself
_PACKAGE = Path(__file__).parents[1]
# What the loader imports of ours. Without any __init__.py: a namespace package gives way to the
# whole package where that is installed, and serves where it is not.
_CARRIED = ("errors.py", "data/reader.py", "evaluate/familiarity.py", "evaluate/temperature.py")
_CARRIED += ("serve/photographs.py",)


def log_model(
    run: Run,
    model: keras.Model | bytes | Path,
    metadata: Mapping[str, object],
    familiarity: Familiarity | None = None,
) -> str:
    """Logs a network under a RUNNING run; returns its address, `models:/m-...`.

    Args:
      model: stock Keras, raw pixels 0..255 [B, H, W, 3] to probabilities [B, n_classes]: the
        network itself, or its `.keras` file, which is kept as it is and not opened.
      metadata: JSON-able; kept in the MLmodel file, the class order among it.
      familiarity: what it knows of its training images, kept as a file beside the network.
    """
    experiment_id = run.client.get_run(run.run_id).info.experiment_id
    # First, and of this experiment: `Model.log` alone would put it into experiment 0.
    logged = run.client.create_logged_model(experiment_id, name="model", source_run_id=run.run_id)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / _FILE
        if isinstance(model, keras.Model):
            model.save(file)
        else:
            file.write_bytes(model if isinstance(model, bytes) else model.read_bytes())
        info = Model.log(
            None,
            flavor=sys.modules[__name__],  # what MLflow calls so is a module with `save_model`
            keras_file=file,
            familiarity=familiarity,
            model_id=logged.model_id,
            run_id=run.run_id,
            metadata=dict(metadata),
        )
    return info.model_uri


def save_model(
    keras_file: Path, path: str, mlflow_model: Model, familiarity: Familiarity | None = None
) -> None:
    """For MLflow: writes a model's folder `path`; its network is copied, not opened."""
    # As mlflow.keras.save_model describes it; that function takes a network, seconds to open.
    mlflow_model.add_flavor(
        "keras",
        data="data",
        keras_version=keras.__version__,
        keras_backend=keras.backend.backend(),
        save_exported_model=False,
    )
    # Base64 text in, one answer each out. As an argument it asks for an example, in a warning.
    text, number = DataType.string, DataType.double
    ranked = Object([Property("label", text), Property("confidence", number)])
    kinds = {"answer": text, "label": text, "confidence": number, "probabilities": Map(number)}
    kinds |= {"top3": Array(ranked), "familiarity": number, "nearest": Array(text)}
    answer = Schema([ColSpec(kind, name) for name, kind in kinds.items()])
    mlflow_model.signature = ModelSignature(Schema([ColSpec(text, "image")]), answer)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / _PACKAGE.name
        for name in _CARRIED:
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_PACKAGE / name, package / name)
        pyfunc.save_model(
            path,
            loader_module="nutclf.serve.photographs",  # in every logged model: it stays
            data_path=str(keras_file),
            code_paths=[str(package)],
            mlflow_model=mlflow_model,
            # Named, not inferred: for that MLflow loads the model in a new process, 11 to 15 s.
            pip_requirements=[f"{name}=={version(name)}" for name in _NEEDED],
        )
    if familiarity is not None:
        familiarity.save(Path(path) / "data" / _KNOWN)


def load_model(store: Store, uri: str) -> keras.Model:
    """Opens a logged or registered model: its .keras file alone, in Keras' safe mode.

    MLflow's own loader follows what lies beside it, such as a SavedModel, which is a program.
    Raises `UserError`: its files are gone, or are not what was saved.
    """
    with _opened(store, uri) as folder:
        return keras.models.load_model(folder / "data" / _FILE, safe_mode=True)


def load_familiarity(store: Store, uri: str) -> Familiarity | None:
    """What a model knows of its training images, if that was kept. Raises as `load_model` does."""
    with _opened(store, uri) as folder:
        file = folder / "data" / _KNOWN
        return Familiarity.load(file) if file.exists() else None


def load_metadata(store: Store, uri: str) -> dict[str, object]:
    """What was kept beside a model when it was logged. Raises `UserError` as `load_model` does."""
    with _opened(store, uri) as folder:
        return mlflow.models.get_model_info(str(folder)).metadata


@contextmanager
def _opened(store: Store, uri: str) -> Iterator[Path]:
    """The folder of a model; what goes wrong with its files becomes a `UserError`."""
    store.use()
    try:
        yield Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (ValueError, TypeError, OSError, YAMLError, MlflowException) as error:
        if getattr(error, "error_code", "RESOURCE_DOES_NOT_EXIST") != "RESOURCE_DOES_NOT_EXIST":
            raise  # a server that is away, say
        reason = str(error).strip().partition("\n")[0][:200].rstrip(".")
        raise UserError(
            f"The model {uri} of {store.tracking_uri} is not opened, as its files are not those "
            f"that were saved ({reason}); put them back, or see what is wrong with `make doctor`."
        ) from error


@dataclass(frozen=True)
class Reloaded:
    """A model from the records, and its class order and image size of its metadata."""

    model: keras.Model
    classes: list[str]
    image_size: int
    valid: pd.DataFrame  # its predictions of today's valid split, whatever it was trained on

    def predict(self, images: Split) -> pd.DataFrame:
        y_prob = predict(self.model, images.pixels)
        return prediction_table(images.paths, images.labels, y_prob, self.classes)


def reload(store: Store, uri: str, load_split: LoadSplit) -> Reloaded:
    """Opens a model and predicts the valid split."""
    known, model = load_metadata(store, uri), load_model(store, uri)
    found = Reloaded(model, known["classes"], known["image_size"], None)
    return replace(found, valid=found.predict(load_split("valid", found.image_size)))


def reload_proved(store: Store, uri: str, run: Run, load_split: LoadSplit) -> Reloaded:
    """Opens a model and compares its valid probabilities with those that its run recorded.

    A model that is not what it was must not see the test split. Raises `RuntimeError`: a
    probability differs by more than `RELOAD_TOLERANCE`; `UserError`: nothing was recorded.
    """
    reloaded, recorded = reload(store, uri, load_split), stored_predictions(run, "valid")
    if recorded is None:
        raise UserError(
            f"The predictions that run {run.run_id} recorded are gone, so its model cannot be "
            "proved; put the run's artifacts back, or sweep under another NAME=."
        )
    again = reloaded.valid.set_index("path").loc[recorded["path"], reloaded.classes]
    gap = np.abs(again.to_numpy() - recorded[reloaded.classes].to_numpy()).max()
    if not gap <= RELOAD_TOLERANCE:
        raise RuntimeError(
            f"{uri} of run {run.run_id} was reloaded and differs by {gap:.2g} in probability from "
            "what the run recorded; its files are not those that were saved, and it stays out"
        )
    return reloaded
