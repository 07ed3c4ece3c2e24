"""One logged model with two interfaces: stock Keras for pixels, and MLflow's own for photographs.

`mlflow.keras.load_model` opens the first, `mlflow.pyfunc.load_model` and MLflow's scoring server
the second. This module is what MLflow calls a flavor: it can save a model.
"""

import shutil
import tempfile
from pathlib import Path

import keras
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Map, Object, Property

LOADER = "nutclf.serve.photographs"
_PACKAGE = Path(__file__).parents[1]
# What the loader imports of ours. Without any __init__.py: a namespace package gives way to the
# whole package where that is installed, and serves where it is not.
_CARRIED = (
    "errors.py",
    "data/reader.py",
    "evaluate/temperature.py",
    "serve/photographs.py",
)


def save_model(keras_file: Path, path: str, mlflow_model: Model, pip_requirements: list[str]):
    """Saves a network that is a file already; it is copied, not opened.

    Args:
      keras_file: called model.keras; stock Keras, raw pixels to probabilities [B, n_classes].
      path: of the folder to write.
      mlflow_model: its description, completed and written as `MLmodel`.
      pip_requirements: of both interfaces.
    """
    # As mlflow.keras.save_model describes it; that function takes a network, seconds to open.
    mlflow_model.add_flavor(
        "keras",
        data="data",
        keras_version=keras.__version__,
        keras_backend=keras.backend.backend(),
        save_exported_model=False,
    )
    mlflow_model.signature = _signature()  # as an argument it asks for an example, in a warning
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / _PACKAGE.name
        for name in _CARRIED:
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_PACKAGE / name, package / name)
        pyfunc.save_model(
            path,
            loader_module=LOADER,
            data_path=str(keras_file),
            code_paths=[str(package)],
            mlflow_model=mlflow_model,
            pip_requirements=pip_requirements,
        )


def _signature() -> ModelSignature:
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
