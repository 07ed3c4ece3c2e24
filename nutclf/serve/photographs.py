"""A logged model's second interface: photographs as base64 text in, answers out.

MLflow opens it by `mlflow.pyfunc.load_model` and in its scoring server. A model carries this file
and those that it imports, so that it answers where this package is not installed.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import keras
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from nutclf.data.reader import UnreadableImage
from nutclf.serve.recognise import Recognised, Recogniser

COLUMN = "image"
MAX_IMAGES = 64
MAX_MEGABYTES = 20
ALLOWED = (
    f"1 to {MAX_IMAGES} photographs, each the base64 text of a JPEG or PNG file of up to "
    f"{MAX_MEGABYTES} MB"
)
REFUSED = "nutclf"
"""Key `refused_by` of a body whose message is a sentence of ours."""


class Refused(MlflowException):
    """A request that is not answered: status 400, and the sentence is all of the message.

    MLflow's server puts the whole request before the message of any exception; it is left out.
    """

    def __init__(self, sentence: str):
        super().__init__(sentence, error_code=BAD_REQUEST)
        self._sentence = sentence

    def serialize_as_json(self) -> str:
        """The body that MLflow's scoring server sends."""
        body = {"error_code": self.error_code, "message": self._sentence, "refused_by": REFUSED}
        return json.dumps(body)


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
        """One dictionary a photograph: see `Recognised.as_json`.

        Args:
          data: a data frame or a dictionary with the column `image`, or a sequence of texts.
          params: none are known; MLflow hands them over.

        Raises:
          Refused: no photograph, too many, too large, no base64, or one that cannot be read.
        """
        texts = _texts(data)
        with self._turn:
            return [answer.as_json() for answer in self._answers(texts)]

    def _answers(self, texts: Sequence[object]) -> list[Recognised]:
        pixels = []
        for number, text in enumerate(texts, start=1):
            which = f"Photograph {number} of {len(texts)}"
            file = _bytes(text, which)
            try:
                pixels.append(self._recogniser.read(file))
            except UnreadableImage as error:
                reason = str(error).rstrip(".")
                raise Refused(f"{which} is refused: {reason}; send {ALLOWED}.") from error
        return self._recogniser.recognise(np.stack(pixels))


def _texts(data) -> Sequence[object]:
    if isinstance(data, pd.DataFrame | dict):
        columns = [str(name) for name in data]
        if COLUMN not in columns and columns:
            raise Refused(f"The column {COLUMN!r} is missing among {columns[:5]}; send {ALLOWED}.")
        data = data[COLUMN] if columns else []
    texts = [data] if isinstance(data, str) else list(data)
    if len(texts) == 1 and isinstance(texts[0], list):  # so MLflow hands over untyped `inputs`
        texts = texts[0]
    if not 1 <= len(texts) <= MAX_IMAGES:
        raise Refused(f"The request has {len(texts)} photographs; send {ALLOWED}.")
    return texts


def _bytes(text: object, which: str) -> bytes:
    if not isinstance(text, str):
        kind = type(text).__name__
        raise Refused(f"{which} is no text but {kind}, and pixels are not taken; send {ALLOWED}.")
    size = len(text) * 3 // 4
    if size > MAX_MEGABYTES * 1_000_000 + 2:  # base64 is padded to multiples of three bytes
        raise Refused(f"{which} has {size / 1e6:.1f} MB; send {ALLOWED}.")
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # line breaks are common
    except (binascii.Error, ValueError) as error:
        raise Refused(f"{which} is a text that is not base64; send {ALLOWED}.") from error


def _load_pyfunc(path: str) -> Photographs:
    """MLflow's entry: opens the .keras file alone, in Keras' safe mode."""
    folder = Path(path)
    model = keras.models.load_model(folder / "data" / "model.keras", safe_mode=True)
    return Photographs(Recogniser(model, Model.load(str(folder / "MLmodel")).metadata))
