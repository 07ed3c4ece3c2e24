"""Whether a model takes the champion's place, and the evidence for it in words."""

from dataclasses import dataclass

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from nutclf.config import Objective
from nutclf.evaluate.claims import SIGNIFICANCE
from nutclf.evaluate.comparison import Comparison, compare
from nutclf.evaluate.metrics import classification_metrics


@dataclass(frozen=True)
class Candidate:
    """A registered model with its predictions.

    Attributes:
      version: in the registry.
      classes: in the model's order.
      out_of_fold: cross-validated predictions of the training split; None when it has none.
      valid: predictions of today's valid split.
    """

    version: ModelVersion
    classes: list[str]
    out_of_fold: pd.DataFrame | None
    valid: pd.DataFrame


@dataclass(frozen=True)
class Verdict:
    """A decision, its reason, and the comparison behind it (None where none was needed)."""

    wins: bool
    reason: str
    comparison: Comparison | None = None

    @property
    def tags(self) -> dict[str, str]:
        """The evidence, as it stands beside the version's description."""
        tags = {"promotion": "champion" if self.wins else "challenger"}
        if (seen := self.comparison) is None:
            return tags
        return tags | {
            "comparison_n": str(seen.n),
            "comparison_champion_only_right": str(seen.only_a),
            "comparison_rival_only_right": str(seen.only_b),
            "comparison_mcnemar_p": f"{seen.p_value:.4g}",
        }


def judge(rival: Candidate, champion: Candidate, objective: Objective) -> Verdict:
    """Holds a rival against the champion, on the same images, paired.

    Where both were cross-validated on the same images, the rival must be right on more of them,
    and by more than luck (McNemar's exact p below 0.05). Otherwise the valid split decides, as in
    the published protocol: the better value of the objective wins, and the evidence is stated.
    """
    names = ("the champion", f"version {rival.version.version}")
    if rival.classes != champion.classes:
        return Verdict(
            False,
            f"It tells other classes apart than champion version {champion.version.version} "
            f"({', '.join(champion.classes)}), so the two cannot be compared; move the alias by "
            "hand, or keep the records of other classes in another STORE=.",
        )
    if _same_images(rival.out_of_fold, champion.out_of_fold):
        found = compare(champion.out_of_fold, rival.out_of_fold, rival.classes)
        wins = found.difference > 0 and found.p_value < SIGNIFICANCE
        return Verdict(wins, f"Out of fold: {found.sentence(*names)}", found)
    metric = objective.by_epoch.removeprefix("valid_")
    new, old = (
        classification_metrics(table, rival.classes)[metric]
        for table in (rival.valid, champion.valid)
    )
    found = compare(champion.valid, rival.valid, rival.classes)
    reason = f"Its valid {metric} {new:.4f} against {old:.4f} on the same images."
    wins = objective.better_than(new, old) if not objective.cross_validated else new < old
    return Verdict(wins, f"{reason} {found.sentence(*names)}", found)


def _same_images(a: pd.DataFrame | None, b: pd.DataFrame | None) -> bool:
    return a is not None and b is not None and set(a["path"]) == set(b["path"])
