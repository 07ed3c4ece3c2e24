"""Models in MLflow: logged under their run, opened again by address."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking import MlflowClient
from yaml import YAMLError

from nutclf.data.folder import Split
from nutclf.errors import UserError
from nutclf.evaluate.predictions import prediction_table
from nutclf.model.network import predict_pixels
from nutclf.track import flavor
from nutclf.track.evaluation import stored_predictions
from nutclf.track.runs import Run
from nutclf.track.store import Store

NAME = "model"
_KEPT = "model.keras"
_NEEDED = ("keras", "tensorflow", "pillow")  # by either interface, beside mlflow itself


def log_model(run: Run, keras_file: bytes, metadata: Mapping[str, object]) -> str:
    """STOPGAP until h-serve lands."""
    import tempfile
    client = run.client
    experiment_id = client.get_run(run.run_id).info.experiment_id
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / _KEPT
        file.write_bytes(keras_file)
        model = keras.models.load_model(file, safe_mode=True)
    logged = client.create_logged_model(experiment_id, name=NAME, source_run_id=run.run_id)
    return Model.log(None, flavor=flavor, model=model, model_id=logged.model_id, run_id=run.run_id,
        pip_requirements=[f"{name}=={version(name)}" for name in _NEEDED], metadata=dict(metadata)).model_uri


def load_model(store: Store, uri: str) -> keras.Model:
    """Opens a logged or registered model: its .keras file alone, in Keras' safe mode.

    MLflow's own loader follows what lies beside it, such as a SavedModel, which is a program.

    Raises:
      UserError: its files are gone, or are not what was saved.
    """
    folder = _folder(store, uri)
    try:
        return keras.models.load_model(folder / "data" / _KEPT, safe_mode=True)
    except (ValueError, TypeError, OSError) as error:
        raise _refused(store, uri, error) from error


def load_metadata(store: Store, uri: str) -> dict[str, object]:
    """What was kept beside a model when it was logged. Raises `UserError` as `load_model` does."""
    folder = _folder(store, uri)
    try:
        return mlflow.models.get_model_info(str(folder)).metadata
    except (ValueError, TypeError, OSError, YAMLError) as error:
        raise _refused(store, uri, error) from error


def _folder(store: Store, uri: str) -> Path:
    store.use()
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (OSError, MlflowException) as error:
        if getattr(error, "error_code", "RESOURCE_DOES_NOT_EXIST") != "RESOURCE_DOES_NOT_EXIST":
            raise  # a server that is away, say
        raise _refused(store, uri, error) from error


def _refused(store: Store, uri: str, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0][:200].rstrip(".")
    return UserError(
        f"The model {uri} of {store.tracking_uri} is not opened, as its files are not those that "
        f"were saved ({reason}); put them back, or see what is wrong with `make doctor`."
    )


RELOAD_TOLERANCE = 1e-6  # in probability, between the model that was logged and the one reloaded


LoadSplit = Callable[[str, int], Split]
"""Reads a split ("valid", "test") at an image size."""


@dataclass(frozen=True)
class Reloaded:
    """A model from the records.

    Attributes:
      model: raw pixels in.
      classes: in the model's order, read from its metadata.
      image_size: side of the images that it was trained on.
      valid: its predictions of today's valid split, whatever data it was trained on.
    """

    model: keras.Model
    classes: list[str]
    image_size: int
    valid: pd.DataFrame

    def predict(self, images: Split) -> pd.DataFrame:
        """The table of its predictions; one pass."""
        return _predictions(self.model, images, self.classes)


def reload(store: Store, uri: str, load_split: LoadSplit) -> Reloaded:
    """Opens a model and predicts the valid split."""
    metadata, model = load_metadata(store, uri), load_model(store, uri)
    classes, size = metadata["classes"], metadata["image_size"]
    return Reloaded(model, classes, size, _predictions(model, load_split("valid", size), classes))


def reload_proved(store: Store, uri: str, run: Run, load_split: LoadSplit) -> Reloaded:
    """Opens a model and holds its probabilities against those that its run recorded.

    On the valid split, whose predictions were recorded before the model was saved. Before anything
    is decided: a model that is not what it was must not see the test split either.

    Raises:
      RuntimeError: a probability differs by more than `RELOAD_TOLERANCE`.
    """
    reloaded = reload(store, uri, load_split)
    again, recorded = (
        table.set_index("path") for table in (reloaded.valid, stored_predictions(run, "valid"))
    )
    classes = reloaded.classes
    gap = np.abs(again.loc[recorded.index, classes] - recorded[classes]).to_numpy().max()
    if not gap <= RELOAD_TOLERANCE:
        raise RuntimeError(
            f"{uri} of run {run.run_id} was reloaded and differs by {gap:.2g} in probability from "
            "what the run recorded; its files are not those that were saved, and it stays out"
        )
    return reloaded


def _predictions(model: keras.Model, images: Split, classes: list[str]) -> pd.DataFrame:
    y_prob = predict_pixels(model, images.pixels)
    return prediction_table(images.paths, images.labels, y_prob, classes)
