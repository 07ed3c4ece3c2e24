"""The one way to the champion: compare, test once, explain in writing, move the alias, prove it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion

from nutclf.config import Objective
from nutclf.data.folder import Split
from nutclf.errors import UserError
from nutclf.evaluate.intervals import SIGNIFICANCE, Comparison, Rate, compare
from nutclf.evaluate.metrics import classification_metrics
from nutclf.evaluate.predictions import classes_of, labels, probabilities, write_predictions
from nutclf.track.evaluation import FOLDER, stored_json, stored_predictions, write_evaluation
from nutclf.track.models import LoadSplit, Reloaded, reload, reload_proved
from nutclf.track.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, best_run, model_uri
from nutclf.track.runs import Run, write_json
from nutclf.track.store import Store, lock_model
from nutclf.track.studies import RECIPE

FindLeaks = Callable[[], Mapping[str, str]]
"""Gives each test image that train or valid has too, with the path of the image there."""

_TAGS = ("study_name", "data_fingerprint", "data_source")  # of the run, for its version too
_LEAKS, _WHOLE = "test_leaks", "test_with_leaks"
_COMMON = 0.8  # share of the images of two data sets from which on they are one, corrected
_NAMED = 5  # leaks that a sentence lists; the tag and the artifact have all


@dataclass(frozen=True)
class Candidate:
    """A registered model, with its predictions: of today's valid split, and any out of fold."""

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

    Where both were cross-validated, and nearly all images are common to both, the rival must be
    right on significantly more of those, by its own labels (McNemar's exact test, p < 0.05).
    Otherwise the valid split decides, as in the published protocol: the better value of the
    objective wins, and the test is reported.
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
    if old is not None and new is not None:
        # Labels that a person corrected count for both, images that only one has for neither.
        true = new.set_index("path")["y_true"]
        common = old[old["path"].isin(true.index)]
        if len(common) >= _COMMON * max(len(old), len(new)):
            old = common.assign(y_true=true[common["path"]].to_numpy())
            found = compare(old, new[new["path"].isin(old["path"])], rival.classes)
            wins = found.difference > 0 and found.p_value < SIGNIFICANCE
            return Verdict(wins, f"Out of fold: {found.sentence(*names)}", found)
    metric = objective.by_epoch.removeprefix("valid_")
    new = classification_metrics(rival.valid, rival.classes)[metric]
    old = classification_metrics(champion.valid, rival.classes)[metric]
    found = compare(champion.valid, rival.valid, rival.classes)
    reason = f"Its valid {metric} {new:.4f} against {old:.4f} on the same images."
    wins = objective.better_than(new, old) if not objective.cross_validated else new < old
    return Verdict(wins, f"{reason} {found.sentence(*names)}", found)


@dataclass(frozen=True)
class Promotion:
    """What was decided about a version, as its description says, too.

    `test` is its accuracy on the test images that no other split has, None when there are none;
    `uri` leads to the champion.
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

    `load_split` is asked for "test" once a run, and that is counted; `force` is a person's reason
    to make the model champion whatever the comparison says.

    Raises:
      UserError: the study has no finished run, or other data, or another promotion does not end.
      RuntimeError: the registry, or the reloaded model, does not hold what it should.
    """
    client, registry = store.client(), Registry(store.client(), experiment)
    found = _best(store, experiment, study_name, objective, fingerprint)
    run, uri = Run(client, found.info.run_id), model_uri(client, found)
    reloaded = reload_proved(store, uri, run, load_split)
    with lock_model(store, experiment):  # two studies may end at once
        on_test = judge_on_test(run, reloaded, load_split, find_leaks)
        version = registry.register(uri, run.run_id, {key: found.data.tags[key] for key in _TAGS})
        before, known = registry.at(CHAMPION), False
        if before is None:
            did, verdict = "is champion:", Verdict(True, "there was none before.")
        elif known := before.version == version.version:
            did, verdict = "is champion already:", Verdict(True, "still the best of its study.")
        else:
            present = reload(store, before.source, load_split)
            verdict = judge(_rival(run, version, reloaded), _rival(run, before, present), objective)
            if force and not verdict.wins:
                verdict = replace(verdict, wins=True, reason=f"By force: {force} {verdict.reason}")
            verb = "replaces" if verdict.wins else "does not replace"
            did = f"{verb} champion version {before.version}."
        value = f"{objective.metric} {found.data.metrics[objective.metric]:.4f}"
        beside = _beside_probe(store, experiment, study_name, objective, found)
        reason = (
            f"Version {version.version} ({found.info.run_name} of study {study_name}, {value}) "
            f"{did} {verdict.reason} {beside}{on_test.sentence()}"
        )
        if not (known and before.description):  # why it became champion stays
            facts = _essentials(found, objective, on_test.clean)
            facts["load"] = f'mlflow.keras.load_model("models:/{experiment}/{version.version}")'
            registry.describe(version, reason, facts | verdict.tags | on_test.tags)
        champion = f"models:/{experiment}@{CHAMPION}"
        if verdict.wins:
            registry.point(CHAMPION, version)
            if before is not None and not known:
                registry.point(PREVIOUS, before)  # the way back
            reload_proved(store, champion, run, load_split)
            challenger = registry.at(CHALLENGER)
            if challenger is not None and challenger.version == version.version:
                client.delete_registered_model_alias(experiment, CHALLENGER)
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


def _essentials(found: MlflowRun, objective: Objective, test: Rate | None) -> dict[str, str]:
    """What a version's page says of its model: figures, and the recipe or the probe."""
    metrics, params = found.data.metrics, found.data.params
    names = [objective.metric, "best_valid_accuracy", f"{objective.judged_on}_macro_f1"]
    facts = {name: f"{metrics[name]:.4f}" for name in names if name in metrics}
    facts |= {"test_accuracy": str(test)} if test else {}
    names = [name for name in ("backbone", "probe", *RECIPE) if name in params]
    return facts | {"recipe": ", ".join(f"{name} {params[name]}" for name in names)}


def _beside_probe(
    store: Store, experiment: str, study_name: str, objective: Objective, best: MlflowRun
) -> str:
    """How a study's best compares with its best probe on the same images; "" without one."""
    client, where = store.client(), store.experiment_id(experiment)
    probe = best_run(client, where, study_name, objective, "probe")
    if probe is None:
        return ""
    if probe.info.run_id == best.info.run_id:
        return "It is a probe: no trial did better. "
    runs = [Run(client, run.info.run_id) for run in (probe, best)]
    of_probe, of_best = (stored_predictions(run, objective.judged_on) for run in runs)
    if of_probe is None or of_best is None:  # their files are gone
        return ""
    found = compare(of_probe, of_best, classes_of(of_best))
    return found.sentence(f"the best probe ({probe.data.params['probe']})", "it") + " "


def _rival(run: Run, version: ModelVersion, model: Reloaded) -> Candidate:
    out_of_fold = stored_predictions(Run(run.client, version.run_id), "cv")
    return Candidate(version, model.classes, out_of_fold, model.valid)


@dataclass(frozen=True)
class OnTest:
    """Accuracy on the test split: `clean`, the headline, leaves out what another split has, too.

    It is None when nothing is left; `leaks` has the image of train or valid by the test image.
    """

    clean: Rate | None
    with_leaks: Rate
    leaks: Mapping[str, str]

    @property
    def tags(self) -> dict[str, str]:
        """The leaks by name, if there are any."""
        return {_LEAKS: "; ".join(self._named())} if self.leaks else {}

    def sentence(self) -> str:
        """Both figures, for people, and why they differ."""
        if not self.leaks:
            return f"Test accuracy {self.with_leaks}."
        named = self._named()
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        listed = ", ".join(named[:_NAMED]) + more
        if self.clean is None:
            return (
                f"No test accuracy: train or valid have every test image too ({listed}); "
                f"on those {self.with_leaks}."
            )
        return (
            f"Test accuracy {self.clean}, without {len(named)} of {self.with_leaks.n} test images "
            f"that train or valid have too ({listed}); with them {self.with_leaks}."
        )

    def _named(self) -> list[str]:
        return [f"{test} is {other}" for test, other in self.leaks.items()]


def judge_on_test(
    run: Run, reloaded: Reloaded, load_split: LoadSplit, find_leaks: FindLeaks
) -> OnTest:
    """Scores a model on the test split, once; afterwards the run's records answer.

    Metrics, matrix and predictions named `test` leave out the images that another split has too;
    `test_accuracy_with_leaks`, `predictions_test_with_leaks.csv` and `test_leaks` (how many; a tag
    names them) are logged beside them.
    """
    leaks, whole = stored_json(run, f"{_LEAKS}.json"), stored_predictions(run, _WHOLE)
    if whole is None:  # nothing leaked, or the split was not opened
        whole = stored_predictions(run, "test")
    if leaks is not None and whole is not None:
        return _figures(whole, leaks)
    found = find_leaks()
    if whole is None:
        whole = reloaded.predict(open_test(run, load_split, reloaded.image_size))
    leaks = {path: found[path] for path in whole["path"] if path in found}
    # All predictions first and the leaks last: wherever this is killed, it can be done again.
    if leaks:
        with run.artifacts() as folder:
            (folder / FOLDER).mkdir()
            write_predictions(whole, folder / FOLDER / f"predictions_{_WHOLE}.csv")
    on_test, clean = _figures(whole, leaks), whole[~whole["path"].isin(leaks)]
    if len(clean):
        y_true, _ = labels(clean, reloaded.classes)
        # From the probabilities, and not from the column that the matrix is made of.
        accuracy = np.mean(probabilities(clean, reloaded.classes).argmax(axis=1) == y_true)
        write_evaluation(run, "test", clean, reloaded.classes, float(accuracy))
    run.metrics({"test_accuracy_with_leaks": on_test.with_leaks.share, _LEAKS: len(leaks)})
    run.tags(on_test.tags)
    with run.artifacts() as folder:
        write_json(folder / FOLDER / f"{_LEAKS}.json", leaks)
    return on_test


def open_test(run: Run, load_split: LoadSplit, image_size: int) -> Split:
    """Reads the test split, and counts that on the run of the model that will see it."""
    images = load_split("test", image_size)
    openings = int(run.client.get_run(run.run_id).data.tags.get("test_openings", 0))
    run.tags({"test_openings": openings + 1})
    return images


def _figures(whole: pd.DataFrame, leaks: Mapping[str, str]) -> OnTest:
    right, clean = whole["y_true"] == whole["y_pred"], ~whole["path"].isin(leaks)
    headline = Rate(int(right[clean].sum()), int(clean.sum())) if clean.any() else None
    return OnTest(headline, Rate(int(right.sum()), len(whole)), leaks)
