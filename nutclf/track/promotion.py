"""The one way to the champion: compare, explain in writing, move the alias, prove it."""

from dataclasses import dataclass

import pandas as pd
from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion

from nutclf.config import Objective
from nutclf.errors import UserError
from nutclf.evaluate.intervals import SIGNIFICANCE, Comparison, Rate, compare
from nutclf.evaluate.metrics import classification_metrics
from nutclf.track.evaluation import stored_predictions
from nutclf.track.models import LoadSplit, reload, reload_proved
from nutclf.track.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, best_run, model_uri
from nutclf.track.runs import Run
from nutclf.track.sealed import FindLeaks, OnTest, judge_on_test
from nutclf.track.store import Store, lock_model

_TAGS = ("study_name", "data_fingerprint", "data_source")  # of the run, for its version too


@dataclass(frozen=True)
class Candidate:
    """A registered model with its predictions.

    Attributes:
      version: in the registry.
      classes: in the model's order.
      out_of_fold: of the training split, when it was cross-validated.
      valid: of today's valid split.
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
        """The evidence, for the version in the registry."""
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
    """Compares a rival with the champion on the same images.

    Where both were cross-validated on the same images, the rival must be right on significantly
    more of them (McNemar's exact test, p < 0.05). Otherwise the valid split decides, as in the
    published protocol: the better value of the objective wins, and the test is reported.
    """
    names = ("the champion", f"version {rival.version.version}")
    if rival.classes != champion.classes:
        return Verdict(
            False,
            f"It tells other classes apart than champion version {champion.version.version} "
            f"({', '.join(champion.classes)}), so the two cannot be compared; move the alias by "
            "hand, or keep the records of other classes in another STORE=.",
        )
    old, new = champion.out_of_fold, rival.out_of_fold
    if old is not None and new is not None and set(old["path"]) == set(new["path"]):
        found = compare(old, new, rival.classes)
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


@dataclass(frozen=True)
class Promotion:
    """What was decided about the version of a study's best model.

    Attributes:
      version: its number.
      is_champion: whether the alias points at it now.
      reason: as written into the version's description.
      test: accuracy on the test images that no other split has; None when there are none.
      uri: of the champion, to be loaded.
    """

    version: int
    is_champion: bool
    reason: str
    test: Rate | None
    uri: str


def promote(
    store: Store,
    experiment: str,
    study_name: str,
    objective: Objective,
    load_split: LoadSplit,
    fingerprint: str,
    find_leaks: FindLeaks,
    force: str = "",
) -> Promotion:
    """Registers a study's best model, and makes it champion if it beats the present one.

    Args:
      store: of the records.
      experiment: its name is also the registered model's.
      study_name: whose best finished run is taken.
      objective: what "best" is.
      load_split: reads the images; "test" is asked for once a run, and that is counted.
      fingerprint: of the data that `load_split` reads.
      find_leaks: names the test images that are in train or valid too; they are left out of the
        headline figures.
      force: a person's reason to make the model champion whatever the comparison says.

    Raises:
      UserError: the study has no finished run, or was trained on other data; or another promotion
        does not end.
      RuntimeError: the registry, or the reloaded model, does not hold what it should.
    """
    client, registry = store.client(), Registry(store.client(), experiment)
    found = _best(store, experiment, study_name, objective, fingerprint)
    run, uri = Run(client, found.info.run_id), model_uri(client, found)
    reloaded = reload_proved(store, uri, run, load_split)
    with lock_model(store, experiment):  # two studies may end at once
        on_test = judge_on_test(run, reloaded, load_split, find_leaks)
        tags = {key: found.data.tags[key] for key in _TAGS}
        version = registry.register(uri, run.run_id, tags)
        before = registry.at(CHAMPION)
        rival = Candidate(version, reloaded.classes, stored_predictions(run, "cv"), reloaded.valid)
        verdict = _verdict(store, rival, before, objective, load_split, force)
        reason = _in_words(found, version, before, objective, verdict, on_test)
        if not (_same(before, version) and before.description):  # why it became champion stays
            registry.describe(version, reason, verdict.tags | on_test.tags)
        champion = f"models:/{experiment}@{CHAMPION}"
        if verdict.wins:
            registry.point(CHAMPION, version)
            if before is not None and not _same(before, version):
                registry.point(PREVIOUS, before)  # the way back
            reload_proved(store, champion, run, load_split)
            if _same(registry.at(CHALLENGER), version):
                registry.drop(CHALLENGER)
        else:
            registry.point(CHALLENGER, version)
    return Promotion(version.version, verdict.wins, reason, on_test.clean, champion)


def _best(
    store: Store, experiment: str, study_name: str, objective: Objective, fingerprint: str
) -> MlflowRun:
    found = best_run(store.client(), store.experiment_id(experiment), study_name, objective)
    if found is None:
        raise UserError(
            f"Study {study_name!r} has no finished run in experiment {experiment!r} of "
            f"{store.tracking_uri}; run `make sweep` first, or name another with STUDY=."
        )
    if (seen := found.data.tags["data_fingerprint"]) != fingerprint:
        raise UserError(
            f"Study {study_name!r} was trained on data with fingerprint {seen[:12]}, and these "
            f"have {fingerprint[:12]}; give its own data with DATA=."
        )
    if objective.metric not in found.data.metrics:
        raise UserError(
            f"No run of study {study_name!r} has {objective.metric}: it was judged otherwise. Say "
            "how with OBJECTIVE=, or sweep under another name with NAME=."
        )
    return found


def _in_words(
    found: MlflowRun,
    version: ModelVersion,
    before: ModelVersion | None,
    objective: Objective,
    verdict: Verdict,
    on_test: OnTest,
) -> str:
    if before is None:
        did = "is champion:"
    elif _same(before, version):
        did = "is champion already:"
    else:
        verb = "replaces" if verdict.wins else "does not replace"
        did = f"{verb} champion version {before.version}."
    value = found.data.metrics[objective.metric]
    who = f"{found.info.run_name} of study {found.data.tags['study_name']}"
    return (
        f"Version {version.version} ({who}, {objective.metric} {value:.4f}) {did} "
        f"{verdict.reason} {on_test.sentence()}"
    )


def _verdict(
    store: Store,
    rival: Candidate,
    champion: ModelVersion | None,
    objective: Objective,
    load_split: LoadSplit,
    force: str,
) -> Verdict:
    if champion is None:
        return Verdict(True, "there was none before.")
    if _same(champion, rival.version):
        return Verdict(True, "still the best of its study.")
    present = reload(store, champion.source, load_split)
    out_of_fold = stored_predictions(Run(store.client(), champion.run_id), "cv")
    champion = Candidate(champion, present.classes, out_of_fold, present.valid)
    found = judge(rival, champion, objective)
    if force and not found.wins:
        return Verdict(True, f"By force: {force} {found.reason}", found.comparison)
    return found


def _same(one: ModelVersion | None, other: ModelVersion) -> bool:
    return one is not None and one.version == other.version
