"""One logged model with two interfaces: stock Keras for pixels, and MLflow's own for photographs.

`mlflow.keras.load_model` opens the first, `mlflow.pyfunc.load_model` and MLflow's scoring server
the second. MLflow calls a module that can save a model a flavor.
"""

import shutil
import tempfile
from pathlib import Path

import keras
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Map, Object, Property

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
    """Saves a network that is a file called model.keras already; it is copied, not opened.

    Writes the folder `path`, with `mlflow_model`, its description, completed, as `MLmodel`. The
    requirements are those of both interfaces.
    """
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
    columns = [text, number, Map(number), Array(ranked)]
    names = ["label", "confidence", "probabilities", "top3"]
    answer = Schema([ColSpec(*column) for column in zip(columns, names, strict=True)])
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
            pip_requirements=pip_requirements,
        )
