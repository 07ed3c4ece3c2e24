"""Which views and which blend a trial answers with, chosen without an image's own label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nutclf.config import Ensemble, View


@dataclass(frozen=True)
class Answers:
    """Probabilities of the same N images under the same V test-time views."""

    views: Sequence[View]
    network: np.ndarray  # [V, N, C]
    probes: Mapping[str, np.ndarray]  # by name, [V, N, C]

    def possible(self, ensembles: Sequence[Ensemble]) -> list[Ensemble]:
        """Those whose probe has answered, or that have none."""
        return [each for each in ensembles if not each.probe or each.probe in self.probes]

    def under(self, ensemble: Ensemble) -> np.ndarray:
        """What an ensemble says, [N, C]."""
        rows = [self.views.index(view) for view in ensemble.views]
        said = self.network[rows].mean(axis=0)
        if not ensemble.probe:
            return said
        blended = self.probes[ensemble.probe][rows].mean(axis=0)
        return (1 - ensemble.weight) * said + ensemble.weight * blended


def choose(
    held_out: Answers, ensembles: Sequence[Ensemble], labels: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, Ensemble]:
    """Answers of the training images [N, C] by an ensemble chosen on the other folds; the choice.

    Nested: of each fold's images, held out by the fits, those of the other folds decide how they
    are answered, so no image has a say in its own answer. The choice is what all of them decide.
    The most right answers win; of equal ones the earlier, which is the cheaper.
    """
    said = np.stack([held_out.under(ensemble) for ensemble in ensembles])
    right = said.argmax(axis=2) == labels
    nested = np.empty(said.shape[1:], said.dtype)
    for fold in np.unique(folds):
        others = folds != fold
        best = int(right[:, others].sum(axis=1).argmax())
        nested[~others] = said[best, ~others]
    return nested, ensembles[int(right.sum(axis=1).argmax())]
