"""Models in MLflow: logged under their run, opened again by address."""

from collections.abc import Mapping

import keras
import mlflow.keras
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from nutclf.track.runs import Run
from nutclf.track.store import Store

NAME = "model"


def log_model(run: Run, model: keras.Model, metadata: Mapping[str, object]) -> str:
    """Logs a Keras model under a run and returns its address, `models:/m-...`.

    Args:
      run: RUNNING.
      model: stock Keras; raw pixels 0..255 [B, H, W, 3] to probabilities [B, n_classes].
      metadata: JSON-able; kept in the MLmodel file, the class order among it.
    """
    experiment_id = run.client.get_run(run.run_id).info.experiment_id
    logged = run.client.create_logged_model(experiment_id, name=NAME, source_run_id=run.run_id)
    info = Model.log(
        None,
        flavor=mlflow.keras,
        model=model,
        model_id=logged.model_id,
        run_id=run.run_id,
        signature=_signature(model.output_shape[-1]),
        # Named, not inferred: to infer them MLflow loads the model in a new process, 11 to 15 s.
        pip_requirements=[f"keras=={keras.__version__}", f"tensorflow=={_tensorflow_version()}"],
        metadata=dict(metadata),
    )
    return info.model_uri


def load_model(store: Store, uri: str) -> keras.Model:
    """Opens a logged or registered model in Keras' safe mode."""
    store.use()
    return mlflow.keras.load_model(uri, load_model_kwargs={"safe_mode": True})


def load_metadata(store: Store, uri: str) -> dict[str, object]:
    """What was kept beside a model when it was logged."""
    store.use()
    return mlflow.models.get_model_info(uri).metadata


def _signature(n_classes: int) -> ModelSignature:
    """uint8 only: pixels scaled to 0..1 are floats, and would otherwise be taken for darkness."""
    pixels = TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))
    probabilities = TensorSpec(np.dtype("float32"), (-1, n_classes))
    return ModelSignature(Schema([pixels]), Schema([probabilities]))


def _tensorflow_version() -> str:
    import tensorflow as tf

    return tf.__version__
