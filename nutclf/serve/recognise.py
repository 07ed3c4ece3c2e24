"""Photographs to answers: shared by `predict`, the server, and a logged model anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from nutclf.data.reader import read_image
from nutclf.evaluate.temperature import Confidence

UNSURE = "unsure"
_BATCH_SIZE = 32


@dataclass(frozen=True)
class Recognised:
    """What a model says of one photograph.

    Attributes:
      probabilities: calibrated, by class name, in the model's order.
      threshold: the least confidence that is an answer, [0, 1].
    """

    probabilities: dict[str, float]
    threshold: float = 0.0

    @property
    def confidence(self) -> float:
        """Of the most probable class, whether it is the answer or not."""
        return max(self.probabilities.values())

    @property
    def label(self) -> str:
        """The most probable class, or `UNSURE`."""
        return next(iter(self.top3)) if self.confidence >= self.threshold else UNSURE

    @property
    def top3(self) -> dict[str, float]:
        """The three most probable classes, the first one first."""
        return dict(sorted(self.probabilities.items(), key=lambda item: -item[1])[:3])

    def line(self) -> str:
        """For a terminal."""
        listed = ", ".join(f"{name} {value:.3f}" for name, value in self.top3.items())
        return f"{UNSURE}: {listed}" if self.label == UNSURE else listed

    def as_json(self) -> dict[str, object]:
        """For a program: label, confidence, probabilities, top3."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "probabilities": self.probabilities,
            "top3": [{"label": name, "confidence": p} for name, p in self.top3.items()],
        }


class Recogniser:
    """A network with what its metadata say of reading photographs and probabilities.

    Args:
      model: RGB 0..255 [B, H, W, 3] to probabilities [B, n_classes].
      metadata: `classes` in the model's order and `image_size`; `temperature` and `threshold` where
        the model has them.
    """

    def __init__(self, model: keras.Model, metadata: Mapping[str, object]):
        self._model = model
        self._classes: list[str] = metadata["classes"]
        self._size: int = metadata["image_size"]
        self._confidence = Confidence.of(metadata)

    def read(self, source) -> np.ndarray:
        """One photograph as the model takes it, uint8 [S, S, 3]; see `read_image`."""
        return read_image(source, self._size)

    def warm_up(self) -> None:
        """Traces the graph for one photograph and for any number; takes seconds."""
        for n in (1, 2):
            self.recognise(np.zeros((n, self._size, self._size, 3), np.uint8))

    def recognise(self, pixels: np.ndarray) -> list[Recognised]:
        """Answers to photographs [N, S, S, 3], in their order."""
        starts = range(0, len(pixels), _BATCH_SIZE)
        raw = [self._model.predict_on_batch(pixels[i : i + _BATCH_SIZE]) for i in starts]
        rows = self._confidence.calibrated(np.concatenate(raw)).tolist()
        threshold = self._confidence.threshold
        return [Recognised(dict(zip(self._classes, row, strict=True)), threshold) for row in rows]
