"""A study as its records tell it: trials ranked, and what was registered from them."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion

from nutclf.config import Objective, SearchSpace, StudyConfig
from nutclf.errors import UserError
from nutclf.evaluate.intervals import Rate
from nutclf.track.evaluation import stored_json
from nutclf.track.runs import STATUS, Run, quoted
from nutclf.track.store import Store

RECIPE = tuple(field.name for field in fields(SearchSpace))
"""Parameters of a trial that a study may search."""

_STATES = {status: state for state, status in STATUS.items()}
_WORDS = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}


def searched(params: Mapping[str, str]) -> dict[str, tuple]:
    """What a study searched, from its run: the values of each parameter that has several."""
    spaces = {name: ast.literal_eval(params.get(f"space.{name}", "()")) for name in RECIPE}
    return {name: values for name, values in spaces.items() if len(set(values)) > 1}


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a study, or one of its probes."""

    number: int | None  # None for a probe
    name: str
    run_id: str
    state: str  # COMPLETE, PRUNED, FAIL or RUNNING
    value: float | None  # of the objective; None unless COMPLETE, as is `accuracy`
    accuracy: Rate | None  # on the images that judge it
    recipe: Mapping[str, str]  # its values of `RECIPE`, as text
    seconds: float  # from its start to its end


@dataclass(frozen=True)
class StudyRecord:
    """One study."""

    run: Run
    tags: Mapping[str, str]
    params: Mapping[str, str]  # of the run; a tag `space.<name>` wins over the param of that name
    objective: Objective
    trials: Sequence[TrialRecord]  # by number
    versions: Sequence[ModelVersion]  # registered from its trials, the newest first
    probes: Sequence[TrialRecord] = ()

    @property
    def name(self) -> str:
        return self.tags["study_name"]

    @property
    def judged_on(self) -> str:
        return self.objective.judged_on

    @property
    def n_done(self) -> int:
        """Trials that count towards TRIALS: COMPLETE and PRUNED ones."""
        return sum(trial.state in ("COMPLETE", "PRUNED") for trial in self.trials)

    @property
    def n_complete(self) -> int:
        """Trials that have a value."""
        return sum(trial.state == "COMPLETE" for trial in self.trials)

    @property
    def counts(self) -> str:
        """How many trials ended how, in words."""
        states = [trial.state for trial in self.trials]
        return ", ".join(f"{states.count(s)} {word}" for s, word in _WORDS.items() if s in states)

    @property
    def best_probe(self) -> TrialRecord | None:
        """The best of the probes, if there are any."""
        return next((one for one in self.ranking if one.number is None), None)

    @cached_property
    def ranking(self) -> list[TrialRecord]:
        """Probes and COMPLETE trials, the best first; of equal ones the earlier."""
        sign = -1 if self.objective.direction == "maximize" else 1
        complete = [one for one in (*self.probes, *self.trials) if one.value is not None]
        return sorted(complete, key=lambda one: sign * one.value)

    @property
    def best(self) -> TrialRecord:
        return self.ranking[0]

    @property
    def best_run(self) -> Run:
        return Run(self.run.client, self.best.run_id)


def read_study(store: Store, experiment: str, config: StudyConfig, fingerprint: str) -> StudyRecord:
    """Reads a study's records.

    Raises `UserError` when it is not there, has no result, or was made on other data than those at
    hand, whose `fingerprint` is given.
    """
    client, objective = store.client(), config.objective
    found = client.get_experiment_by_name(experiment)
    query = f"tags.study_name = {quoted(config.name)} AND tags.kind != 'seed'"
    runs = client.search_runs([found.experiment_id], query, max_results=10_000) if found else []
    study = next((run for run in runs if run.data.tags["kind"] == "study"), None)
    trials, probes = ([r for r in runs if r.data.tags["kind"] == k] for k in ("trial", "probe"))
    judged = [r for r in trials if _state(r) == "COMPLETE" and objective.metric in r.data.metrics]
    if judged and study is None:
        raise UserError(
            f"The run of study {config.name!r} was deleted in MLflow; restore it with `make doctor "
            "FIX=1`."
        )
    if not judged:
        raise UserError(
            f"Study {config.name!r} has no finished trial in experiment {experiment!r} of "
            f"{store.tracking_uri}; run `make sweep` first, or name another with STUDY= or NAME=."
        )
    if (seen := judged[0].data.tags["data_fingerprint"]) != fingerprint:
        raise UserError(
            f"Study {config.name!r} was made on data with fingerprint {seen[:12]}, and these have "
            f"{fingerprint[:12]}; give its own data with DATA=."
        )
    file = f"confusion_matrix_{objective.judged_on}.json"
    if (kept := stored_json(Run(client, judged[0].info.run_id), file)) is None:
        raise UserError(
            f"The files of {judged[0].info.run_name} of study {config.name!r} are gone from "
            f"{judged[0].info.artifact_uri}; put them back, or begin another study with NAME=."
        )
    n = sum(map(sum, kept["matrix"]))  # images that judge a trial: the same for each
    # A param cannot change: a study whose space was widened says so in a tag.
    space = {key: text for key, text in study.data.tags.items() if key.startswith("space.")}
    # Read one by one: a search of versions leaves out the aliases.
    query = f"name = '{experiment}' AND tags.study_name = {quoted(config.name)}"
    numbers = sorted((int(v.version) for v in client.search_model_versions(query)), reverse=True)
    return StudyRecord(
        Run(client, study.info.run_id),
        study.data.tags,
        study.data.params | space,
        objective,
        sorted((_trial(run, objective, n) for run in trials), key=lambda trial: trial.number),
        [client.get_model_version(experiment, str(number)) for number in numbers],
        [_trial(run, objective, n) for run in probes if _state(run) == "COMPLETE"],
    )


def _state(run: MlflowRun) -> str:
    return _STATES.get(run.info.status, "RUNNING")


def _trial(run: MlflowRun, objective: Objective, n: int) -> TrialRecord:
    info, metrics, params, state = run.info, run.data.metrics, run.data.params, _state(run)
    value = metrics.get(objective.metric) if state == "COMPLETE" else None
    share = metrics.get("cv_accuracy" if objective.cross_validated else "best_valid_accuracy")
    return TrialRecord(
        number=int(number) if (number := run.data.tags.get("trial_number")) else None,
        name=info.run_name,
        run_id=info.run_id,
        state=state,
        value=value,
        accuracy=None if value is None else Rate(round(share * n), n),
        recipe={key: params[key] for key in RECIPE if key in params},
        seconds=((info.end_time or info.start_time) - info.start_time) / 1000,
    )
