"""One logged model with two interfaces: stock Keras for pixels, and MLflow's own for photographs.

`mlflow.keras.load_model` opens the first, `mlflow.pyfunc.load_model` and MLflow's scoring server
the second. This module is what MLflow calls a flavor: it can save a model.
"""

import shutil
from pathlib import Path

import keras
import mlflow.keras
import numpy as np
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array, Map, Object, Property

LOADER = "nutclf.serve.photographs"
_PACKAGE = Path(__file__).parents[1]
_CODE = "code"
# What the loader imports of ours. Without any __init__.py: a namespace package gives way to the
# whole package where that is installed, and serves where it is not.
_CARRIED = (
    "errors.py",
    "data/reader.py",
    "evaluate/temperature.py",
    "serve/photographs.py",
    "serve/recognise.py",
)


def save_model(
    model: keras.Model, path: str, mlflow_model: Model, pip_requirements: list[str]
) -> None:
    """Saves as `mlflow.keras` does, and puts the interface for photographs beside it.

    Args:
      model: stock Keras; raw pixels [B, H, W, 3] to probabilities [B, n_classes].
      path: of the folder to write.
      mlflow_model: its description, completed and written as `MLmodel`.
      pip_requirements: of both interfaces.
    """
    pixels = ModelSignature(Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))]))
    mlflow.keras.save_model(
        model,
        path,
        mlflow_model=mlflow_model,
        signature=pixels,
        pip_requirements=pip_requirements,
    )
    for name in _CARRIED:
        copy = Path(path) / _CODE / _PACKAGE.name / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_PACKAGE / name, copy)
    environment = mlflow_model.flavors[pyfunc.FLAVOR_NAME][pyfunc.ENV]
    pyfunc.add_to_model(
        mlflow_model,
        LOADER,
        code=_CODE,
        conda_env=environment["conda"],
        python_env=environment["virtualenv"],
    )
    mlflow_model.signature = signature()
    mlflow_model.save(str(Path(path) / "MLmodel"))


def signature() -> ModelSignature:
    """Of the interface for photographs: base64 text in, one answer each out."""
    text, number = DataType.string, DataType.double
    ranked = Object([Property("label", text), Property("confidence", number)])
    answer = [
        ColSpec(text, "label"),
        ColSpec(number, "confidence"),
        ColSpec(Map(number), "probabilities"),
        ColSpec(Array(ranked), "top3"),
    ]
    return ModelSignature(Schema([ColSpec(text, "image")]), Schema(answer))
