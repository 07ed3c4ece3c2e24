"""A logged model's second interface: photographs as base64 text in, answers out.

MLflow opens it by `mlflow.pyfunc.load_model` and in its scoring server; `make serve` uses it too. A
model carries this file and those that it imports, so that it answers where this package is not
installed.
"""

import base64
import binascii
import json
from pathlib import Path
from threading import Lock

import keras
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from nutclf.data.reader import UnreadableImage
from nutclf.serve.recognise import Recogniser

COLUMN = "image"
MAX_IMAGES = 64
MAX_MEGABYTES = 20
ALLOWED = (
    f"1 to {MAX_IMAGES} photographs, each the base64 text of a JPEG or PNG file of up to "
    f"{MAX_MEGABYTES} MB"
)


class Refused(MlflowException):
    """A request that is not answered: status 400, and one sentence that ends with what is allowed.

    Args:
      problem: the sentence's first half.
      send: what to send instead.
    """

    def __init__(self, problem: str, send: str = ALLOWED):
        super().__init__(f"{problem}; send {send}.", error_code=BAD_REQUEST)

    def serialize_as_json(self) -> str:
        """The body of the answer.

        MLflow's server puts the whole request before an exception's message; it is left out here.
        """
        sentence = self.args[0]
        return json.dumps({"error_code": self.error_code, "message": sentence})


class Photographs:
    """Answers to base64 text.

    Args:
      recogniser: answers to pixels.
    """

    def __init__(self, recogniser: Recogniser):
        self._recogniser = recogniser
        # One request computes at a time: TensorFlow takes all processors for one, and a photograph
        # at the reader's limit takes 0.7 GB while it is decoded.
        self._turn = Lock()

    def predict(self, data, params: dict | None = None) -> list[dict[str, object]]:
        """One dictionary per photograph: see `Recognised.as_json`.

        Args:
          data: a data frame or a dictionary with the column `image`, or a sequence of texts.
          params: none are known; MLflow hands them over.

        Raises:
          Refused: no photograph, too many, too large, no base64, or one that cannot be read.
        """
        texts = _texts(data)
        with self._turn:
            pixels = [self._read(text, i, len(texts)) for i, text in enumerate(texts, start=1)]
            return [answer.as_json() for answer in self._recogniser.recognise(np.stack(pixels))]

    def _read(self, text: object, number: int, n: int) -> np.ndarray:
        which = f"Photograph {number} of {n}"
        if not isinstance(text, str):
            raise Refused(f"{which} is no text but {type(text).__name__}, and pixels are not taken")
        size = len(text) * 3 // 4
        if size > MAX_MEGABYTES * 1_000_000 + 2:  # base64 is padded to multiples of three bytes
            raise Refused(f"{which} has {size / 1e6:.1f} MB")
        try:
            # Line breaks are common in base64.
            return self._recogniser.read(base64.b64decode("".join(text.split()), validate=True))
        except UnreadableImage as error:
            raise Refused(f"{which} is refused: {str(error).rstrip('.')}") from error
        except (binascii.Error, ValueError) as error:
            raise Refused(f"{which} is a text that is not base64") from error


def _texts(data) -> list[object]:
    if isinstance(data, pd.DataFrame | dict):
        columns = [str(name) for name in data]
        if COLUMN not in columns and columns:
            raise Refused(f"The column {COLUMN!r} is missing among {columns[:5]}")
        data = data[COLUMN] if columns else []
    texts = list(data) if isinstance(data, list | tuple | pd.Series | np.ndarray) else [data]
    if len(texts) == 1 and isinstance(texts[0], list):  # how MLflow hands over untyped `inputs`
        texts = texts[0]
    if not 1 <= len(texts) <= MAX_IMAGES:
        raise Refused(f"The request has {len(texts)} photographs")
    return texts


def _load_pyfunc(path: str) -> Photographs:
    """MLflow's entry: opens the .keras file alone, in Keras' safe mode.

    Args:
      path: of the .keras file; of the model's folder in models logged by earlier versions.
    """
    given = Path(path)
    folder = given if given.is_dir() else given.parents[1]
    model = keras.models.load_model(folder / "data" / "model.keras", safe_mode=True)
    return Photographs(Recogniser(model, Model.load(str(folder / "MLmodel")).metadata))
