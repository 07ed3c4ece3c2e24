"""The one way to the champion: compare, explain in writing, move the alias, prove it."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion

from nutclf.config import Objective
from nutclf.errors import UserError
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.predictions import prediction_table, read_predictions
from nutclf.model.network import predict_pixels
from nutclf.track.evaluation import FOLDER, write_evaluation
from nutclf.track.models import load_metadata, load_model
from nutclf.track.registry import CHALLENGER, CHAMPION, Registry, best_run, model_uri
from nutclf.track.runs import Run
from nutclf.track.store import Store
from nutclf.track.verdict import Candidate, Verdict, judge

RELOAD_TOLERANCE = 1e-6  # in probability, between the model that was logged and the one reloaded


@dataclass(frozen=True)
class Split:
    """Images of one split at the size that a model takes.

    Attributes:
      pixels: uint8 [N, S, S, 3].
      labels: int64 [N].
      paths: N paths, relative to the data set's folder.
    """

    pixels: np.ndarray
    labels: np.ndarray
    paths: list[str]


LoadSplit = Callable[[str, int], Split]
"""Reads a split ("valid", "test") at an image size."""


@dataclass(frozen=True)
class Promotion:
    """What was decided.

    Attributes:
      version: of the study's best model.
      is_champion: whether the alias points at it now.
      reason: why, as written into the version's description.
      test: its accuracy on the test split.
      uri: what to load.
    """

    version: int
    is_champion: bool
    reason: str
    test: Rate
    uri: str


def promote(
    store: Store,
    experiment: str,
    study_name: str,
    objective: Objective,
    load_split: LoadSplit,
    fingerprint: str,
    force: str = "",
) -> Promotion:
    """Registers a study's best model, and makes it champion if it beats the present one.

    Args:
      store: of the records.
      experiment: its name is also the registered model's.
      study_name: whose best finished run is taken.
      objective: what "best" is.
      load_split: opens the images; "test" is asked for once, and the opening is counted.
      fingerprint: of the data that `load_split` reads.
      force: a person's reason to make the model champion whatever the comparison says.

    Raises:
      UserError: the study has no finished run, or was trained on other data.
      RuntimeError: the registry, or the reloaded model, does not hold what it should.
    """
    client, registry = store.client(), Registry(store.client(), experiment)
    found = best_run(client, store.experiment_id(experiment), study_name, objective)
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
    run, uri = Run(client, found.info.run_id), model_uri(client, found)
    _prove(store, uri, run, load_split)
    classes = load_metadata(store, uri)["classes"]
    test = _test_predictions(store, run, uri, classes, load_split)
    version = registry.register(uri, run.run_id, _version_tags(found))
    before = registry.at(CHAMPION)
    verdict = _verdict(store, registry, version, objective, load_split, force)
    right = Rate(int((test["y_true"] == test["y_pred"]).sum()), len(test))
    reason = _in_words(found, version, before, objective, verdict, right)
    registry.describe(version, reason, _evidence_tags(verdict))
    if verdict.wins:
        registry.point(CHAMPION, version)
        _prove(store, f"models:/{experiment}@{CHAMPION}", run, load_split)
        if (challenger := registry.at(CHALLENGER)) and challenger.version == version.version:
            registry.drop(CHALLENGER)
    else:
        registry.point(CHALLENGER, version)
    return Promotion(
        version.version, verdict.wins, reason, right, f"models:/{experiment}@{CHAMPION}"
    )


def _in_words(
    found: MlflowRun,
    version: ModelVersion,
    before: ModelVersion | None,
    objective: Objective,
    verdict: Verdict,
    right: Rate,
) -> str:
    """The decision as it stands in the version's description."""
    if before is None:
        did = "is champion:"
    elif before.version == version.version:
        did = "is champion already:"
    else:
        verb = "replaces" if verdict.wins else "does not replace"
        did = f"{verb} champion version {before.version}."
    value = found.data.metrics[objective.metric]
    who = f"{found.info.run_name} of study {found.data.tags['study_name']}"
    return (
        f"Version {version.version} ({who}, {objective.metric} {value:.4f}) {did} "
        f"{verdict.reason} Test accuracy {right}."
    )


def _evidence_tags(verdict: Verdict) -> dict[str, str]:
    tags = {"promotion": "champion" if verdict.wins else "challenger"}
    if (seen := verdict.comparison) is None:
        return tags
    return tags | {
        "comparison_n": str(seen.n),
        "comparison_champion_only_right": str(seen.only_a),
        "comparison_rival_only_right": str(seen.only_b),
        "comparison_mcnemar_p": f"{seen.p_value:.4g}",
    }


def _test_predictions(
    store: Store, run: Run, uri: str, classes: list[str], load_split: LoadSplit
) -> pd.DataFrame:
    """Predictions on the sealed test split: made once a run, read from its records afterwards."""
    known = stored_predictions(run, "test")
    if known is not None:
        return known
    model = load_model(store, uri)
    images = load_split("test", load_metadata(store, uri)["image_size"])
    openings = int(run.client.get_run(run.run_id).data.tags.get("test_openings", 0))
    run.tags({"test_openings": openings + 1})
    table = _predictions(model, images, classes)
    accuracy = float(np.mean(predict_pixels(model, images.pixels).argmax(axis=1) == images.labels))
    write_evaluation(run, "test", table, classes, accuracy)
    return table


def _verdict(
    store: Store,
    registry: Registry,
    version: ModelVersion,
    objective: Objective,
    load_split: LoadSplit,
    force: str,
) -> Verdict:
    """Whether the model becomes champion, and why."""
    champion = registry.at(CHAMPION)
    if champion is None:
        return Verdict(True, "there was none before.")
    if champion.version == version.version:
        return Verdict(True, "still the best of its study.")
    rival, present = (_candidate(store, registry, v, load_split) for v in (version, champion))
    found = judge(rival, present, objective)
    if force and not found.wins:
        return Verdict(True, f"By force: {force} {found.reason}", found.comparison)
    return found


def _candidate(
    store: Store, registry: Registry, version: ModelVersion, load_split: LoadSplit
) -> Candidate:
    classes = load_metadata(store, version.source)["classes"]
    out_of_fold = stored_predictions(Run(registry.client, version.run_id), "cv")
    return Candidate(version, classes, out_of_fold, _valid_predictions(store, version, load_split))


def _valid_predictions(store: Store, version: ModelVersion, load_split: LoadSplit) -> pd.DataFrame:
    """A version's answers on today's valid split, whatever data it was trained on."""
    metadata = load_metadata(store, version.source)
    images = load_split("valid", metadata["image_size"])
    return _predictions(load_model(store, version.source), images, metadata["classes"])


def _predictions(model, images: Split, classes: list[str]) -> pd.DataFrame:
    return prediction_table(
        images.paths, images.labels, predict_pixels(model, images.pixels), classes
    )


def stored_predictions(run: Run, split: str) -> pd.DataFrame | None:
    """The predictions that a run recorded for a split; None when it has none."""
    name = f"{FOLDER}/predictions_{split}.csv"
    if name not in {file.path for file in run.client.list_artifacts(run.run_id, FOLDER)}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return read_predictions(Path(run.client.download_artifacts(run.run_id, name, folder)))


def _version_tags(found: MlflowRun) -> dict[str, str]:
    tags = found.data.tags
    return {key: tags[key] for key in ("study_name", "data_fingerprint", "data_source")}


def _prove(store: Store, uri: str, run: Run, load_split: LoadSplit) -> None:
    """Loads the model and holds its probabilities against those that its run recorded.

    On the valid split, whose predictions were recorded before the model was saved. Before anything
    is decided: a model that is not what it was must not see the test split either.
    """
    metadata = load_metadata(store, uri)
    images, classes = load_split("valid", metadata["image_size"]), metadata["classes"]
    again = _predictions(load_model(store, uri), images, classes).set_index("path")
    recorded = stored_predictions(run, "valid").set_index("path")
    gap = np.abs(again.loc[recorded.index, classes] - recorded[classes]).to_numpy().max()
    if not gap <= RELOAD_TOLERANCE:
        raise RuntimeError(
            f"{uri} of run {run.run_id} was reloaded and differs by {gap:.2g} in probability from "
            "what the run recorded; its files are not those that were saved, and it stays out"
        )
