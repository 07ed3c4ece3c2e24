"""Probabilities made sharper or flatter by a temperature, and the least that counts as an answer.

NumPy alone: a logged model carries this file, and answers with it where nothing else of ours is.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

EPSILON = 1e-7
"""Keras' fuzz factor: probabilities are clipped to [1e-7, 1 - 1e-7] before the logarithm."""


def apply_temperature(y_prob: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log p / T), float64 [N, C]; never changes which class comes first.

    Args:
      y_prob: probabilities [N, C], clipped at 1e-7 from below, as in the loss.
      temperature: T > 0; 1 changes nothing, more flattens, less sharpens.

    Raises:
      ValueError: temperature is not above 0.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature is {temperature}; it must be above 0 and finite")
    logits = np.log(np.clip(np.asarray(y_prob, dtype=np.float64), EPSILON, None)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Confidence:
    """How the probabilities of a model are to be read; kept in its metadata.

    Attributes:
      temperature: above 0; 1 leaves the probabilities as they are.
      threshold: the least confidence that is an answer, [0, 1]; 0 answers everything.
      coverage: share of held-out images that the threshold was chosen to answer, (0, 1].
    """

    temperature: float = 1.0
    threshold: float = 0.0
    coverage: float = 1.0

    @classmethod
    def of(cls, metadata: Mapping[str, object]) -> "Confidence":
        """What a model's metadata say; models of before there was any are taken at their word."""
        return cls(**{name: metadata[name] for name in asdict(cls()) if name in metadata})

    def calibrated(self, y_prob: np.ndarray) -> np.ndarray:
        """Probabilities as they are told to people, float64 [N, C]."""
        return apply_temperature(y_prob, self.temperature)
