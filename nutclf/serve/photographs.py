"""From photographs to answers: `Recogniser` takes pixels, `Photographs` base64 text.

MLflow opens `Photographs` by `mlflow.pyfunc.load_model` and in its scoring server; `predict` and
`serve` use the same code. A model carries this file and those that it imports, so that it answers
where this package is not installed.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import keras
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from nutclf.data.reader import NOTHING, UnreadableImage, read_image, shows_nothing
from nutclf.evaluate.familiarity import Familiarity
from nutclf.evaluate.temperature import Confidence

UNSURE, UNFAMILIAR = "unsure", "unfamiliar"
COLUMN = "image"
MAX_IMAGES = 64
MAX_MEGABYTES = 20
_EACH = f"the base64 text of a JPEG or PNG file of up to {MAX_MEGABYTES} MB"
ALLOWED = f"1 to {MAX_IMAGES} photographs, each {_EACH}"
_BATCH_SIZE = 32


@dataclass(frozen=True)
class Recognised:
    """What a model says of one photograph: calibrated probabilities by class name, in its order."""

    probabilities: dict[str, float]
    threshold: float = 0.0  # the least confidence that is an answer, [0, 1]
    familiarity: float | None = None  # with the training images, [-1, 1]; None: not known
    least_familiar: float = -1.0  # that is an answer
    nearest: tuple[str, ...] = ()  # paths of the training images that it is nearest to

    @property
    def top3(self) -> dict[str, float]:
        """The three most probable classes, the first one first."""
        return dict(sorted(self.probabilities.items(), key=lambda item: -item[1])[:3])

    @property
    def confidence(self) -> float:
        """Of the most probable class, whether it is the answer or not."""
        return max(self.probabilities.values())

    @property
    def answer(self) -> str:
        """What kind of answer it is: `UNFAMILIAR`, `UNSURE`, or "class"."""
        if self.familiarity is not None and self.familiarity < self.least_familiar:
            return UNFAMILIAR
        return "class" if self.confidence >= self.threshold else UNSURE

    @property
    def label(self) -> str:
        """The most probable class, `UNSURE` or `UNFAMILIAR`."""
        return next(iter(self.top3)) if self.answer == "class" else self.answer

    def line(self) -> str:
        if self.answer == UNFAMILIAR:
            near = ", ".join(self.nearest[:3])
            return f"{UNFAMILIAR}: like nothing it learned from; nearest are {near}"
        # A class may be called as an answer is.
        names = {name: repr(name) if name in (UNSURE, UNFAMILIAR) else name for name in self.top3}
        listed = ", ".join(f"{names[name]} {value:.3f}" for name, value in self.top3.items())
        return f"{UNSURE}: {listed}" if self.answer == UNSURE else listed

    def as_json(self) -> dict[str, object]:
        known = {"familiarity": self.familiarity, "nearest": list(self.nearest)}
        return {
            "answer": self.answer,
            "label": self.label,
            "confidence": self.confidence,
            "probabilities": self.probabilities,
            "top3": [{"label": name, "confidence": p} for name, p in self.top3.items()],
            **({} if self.familiarity is None else known),
        }


class Recogniser:
    """A network that takes RGB 0..255 [B, H, W, 3], with what its metadata say of using it:
    `classes` in its order, `image_size`, and the fields of `Confidence` where it has them.

    With `familiarity` it says `UNFAMILIAR` of what is like nothing the network learned from."""

    def __init__(
        self,
        model: keras.Model,
        metadata: Mapping[str, object],
        familiarity: Familiarity | None = None,
    ):
        self._model, self._classes, self._known = model, metadata["classes"], familiarity
        if familiarity is not None:
            # By view, with the frozen features that the network computes beside its answer.
            views, network = model.get_layer("views"), model.get_layer("network")
            self._model = keras.Model(model.input, network(views.output))
        self._size, self._confidence = metadata["image_size"], Confidence.of(metadata)

    def read(self, source) -> np.ndarray:
        """One photograph as the model takes it, uint8 [S, S, 3].

        Raises `UnreadableImage` as `read_image` does, and for one that shows nothing.
        """
        pixels = read_image(source, self._size)
        if shows_nothing(pixels):
            raise UnreadableImage(f"it is {NOTHING}")
        return pixels

    def warm_up(self) -> None:
        """Traces the graph for one photograph and for any number; takes seconds.

        Raises `RuntimeError`: what comes out are no probabilities.
        """
        for n in (1, 2):
            answers = self.recognise(np.zeros((n, self._size, self._size, 3), np.uint8))
            if not all(abs(sum(a.probabilities.values()) - 1) < 1e-3 for a in answers):
                raise RuntimeError("the network does not answer with probabilities")

    def recognise(self, pixels: np.ndarray) -> list[Recognised]:
        """Answers to photographs [N, S, S, 3], in their order."""
        starts = range(0, len(pixels), _BATCH_SIZE)
        return [answer for i in starts for answer in self._batch(pixels[i : i + _BATCH_SIZE])]

    def _batch(self, pixels: np.ndarray) -> list[Recognised]:
        raw, n, known = self._model.predict_on_batch(pixels), len(pixels), self._known
        more = [()] * n
        if known is not None:
            raw, features = (by_view.reshape(-1, n, by_view.shape[1]).mean(0) for by_view in raw)
            scores, nearest = known.compare(features)
            more = [
                (float(score), known.threshold, tuple(names))
                for score, names in zip(scores, nearest, strict=True)
            ]
        rows, least = self._confidence.calibrated(raw).tolist(), self._confidence.threshold
        return [
            Recognised(dict(zip(self._classes, row, strict=True)), least, *each)
            for row, each in zip(rows, more, strict=True)
        ]


class Refused(MlflowException):
    """A request that is not answered: status 400, and one sentence that ends with what to send."""

    def __init__(self, problem: str, send: str = ALLOWED):
        super().__init__(f"{problem}; send {send}.", error_code=BAD_REQUEST)

    def serialize_as_json(self) -> str:
        """The body of the answer, without the request that MLflow's server puts before it."""
        return json.dumps({"error_code": self.error_code, "message": self.args[0]})


class Photographs:
    """Answers to base64 text."""

    def __init__(self, recogniser: Recogniser):
        self._recogniser = recogniser
        # One request computes at a time: TensorFlow takes all processors for one, and a photograph
        # at the reader's limit takes 0.7 GB while it is decoded.
        self._turn = Lock()

    def predict(self, data, params: dict | None = None) -> list[dict[str, object]]:
        """Takes a data frame or a dictionary with the column `image`, or a sequence of texts.

        Gives a dictionary per photograph, see `Recognised.as_json`, or raises `Refused`.
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
            # Line breaks are common in base64, and browsers put "data:image/jpeg;base64," first.
            text = "".join(re.sub(r"^\s*data:[^,]*;base64,", "", text, flags=re.I).split())
            return self._recogniser.read(base64.b64decode(text, validate=True))
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
    """MLflow's entry: opens the .keras file at `path` alone, in Keras' safe mode."""
    given = Path(path)  # of the model's folder, where an earlier version logged it
    folder = given if given.is_dir() else given.parents[1]
    model = keras.models.load_model(folder / "data" / "model.keras", safe_mode=True)
    known = folder / "data" / "familiarity.npz"
    metadata = Model.load(str(folder / "MLmodel")).metadata
    familiarity = Familiarity.load(known) if known.exists() else None
    return Photographs(Recogniser(model, metadata, familiarity))
