"""How a good model comes to a near-random confusion matrix: each known mistake, made on purpose.

The published experiment claims 0.94 and ends in a test matrix close to random. The functions here
make one mistake of the evaluation each and leave the model as it is.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from nutclf.evaluate.claims import Claim
from nutclf.evaluate.diagnosis import Diagnosis, diagnose
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.metrics import confusion, confusion_record
from nutclf.evaluate.predictions import labels, prediction_table, probabilities


@dataclass(frozen=True)
class Exhibit:
    """A confusion matrix, and what its diagnosis makes of it.

    Attributes:
      key: short name for records, of letters and underscores.
      cause: what was done, for people.
      matrix: counts [C, C], rows true.
      diagnosis: of that matrix against the claim.
    """

    key: str
    cause: str
    matrix: np.ndarray
    diagnosis: Diagnosis

    @property
    def rate(self) -> Rate:
        """Share on the diagonal, with its interval."""
        return Rate(self.diagnosis.right, self.diagnosis.n)

    def record(self) -> dict[str, object]:
        """Everything, as JSON takes it."""
        found = asdict(self.diagnosis)
        del found["classes"]  # they stand beside the matrix
        return (
            {"key": self.key, "cause": self.cause, "accuracy": self.rate.share}
            | confusion_record(self.matrix, self.diagnosis.classes)
            | {"diagnosis": found | {"sentence": self.diagnosis.sentence()}}
        )


def exhibit(
    key: str, cause: str, table: pd.DataFrame, classes: Sequence[str], claim: Claim
) -> Exhibit:
    """Holds the confusion matrix of a table of predictions against a claim."""
    matrix = confusion(table, classes)
    return Exhibit(key, cause, matrix, diagnose(matrix, claim, classes))


def in_another_order(table: pd.DataFrame, classes: Sequence[str], seed: int) -> pd.DataFrame:
    """Predictions in shuffled order beside paths and labels in folder order.

    So does `predict` of a generator with `shuffle=True`, compared with `generator.classes`.

    Args:
      table: from `prediction_table`.
      classes: of it.
      seed: of the shuffle.
    """
    order = np.random.default_rng(seed).permutation(len(table))
    y_prob = probabilities(table, classes)[order]
    return prediction_table(table["path"], labels(table, classes)[0], y_prob, classes)


def under_other_names(table: pd.DataFrame, classes: Sequence[str], seed: int) -> pd.DataFrame:
    """The network's outputs read with a class list in another order, as an unsorted listing gives.

    Every class gets another one's name.

    Args:
      table: from `prediction_table`.
      classes: of it, two or more.
      seed: of the order.
    """
    mixed = np.random.default_rng(seed).permutation(len(classes))
    source = np.empty_like(mixed)
    source[mixed] = np.roll(mixed, 1)  # one cycle through all classes: none keeps its name
    y_prob = probabilities(table, classes)[:, source]
    return prediction_table(table["path"], labels(table, classes)[0], y_prob, classes)


def pixels_that_become(
    inputs: np.ndarray, scale: Sequence[float], offset: Sequence[float]
) -> np.ndarray:
    """Pixels that a model with its own scaling turns into `inputs`.

    The model computes `pixel * scale + offset`; this takes it back, so that the network behind the
    scaling sees what an evaluation that forgot to scale would have shown it.

    Args:
      inputs: what the network shall see, [N, S, S, 3].
      scale, offset: of each channel, as in `BackboneSpec`.

    Returns:
      float32 [N, S, S, 3], far outside 0..255 as a rule.
    """
    unscaled = (np.asarray(inputs, np.float64) - np.asarray(offset)) / np.asarray(scale)
    return unscaled.astype(np.float32)
