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
    """softmax(log p / T) of probabilities [N, C], float64; never changes which class comes first.

    T is above 0 (else `ValueError`): 1 changes nothing, more flattens, less sharpens.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature is {temperature}; it must be above 0 and finite")
    logits = np.log(np.clip(np.asarray(y_prob, dtype=np.float64), EPSILON, None)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Confidence:
    """How the probabilities of a model are to be read; kept in its metadata."""

    temperature: float = 1.0  # above 0; 1 leaves the probabilities as they are
    threshold: float = 0.0  # the least confidence that is an answer, [0, 1]; 0 answers everything
    coverage: float = 1.0  # share of held-out images that the threshold answers, (0, 1]

    @classmethod
    def of(cls, metadata: Mapping[str, object]) -> "Confidence":
        """From a model's metadata; older models have none, and get the defaults."""
        return cls(**{name: metadata[name] for name in asdict(cls()) if name in metadata})

    def calibrated(self, y_prob: np.ndarray) -> np.ndarray:
        return apply_temperature(y_prob, self.temperature)
