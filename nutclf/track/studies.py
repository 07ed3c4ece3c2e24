"""A study as its records tell it: trials ranked, and what was registered from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

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


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a study.

    Attributes:
      number, name, run_id: of the trial and its run.
      state: COMPLETE, PRUNED, FAIL or RUNNING.
      value: of the objective; None unless COMPLETE.
      accuracy: on the images that judge it, with its interval; None unless COMPLETE.
      recipe: its values of `RECIPE`, as text.
      seconds: from its start to its end.
    """

    number: int
    name: str
    run_id: str
    state: str
    value: float | None
    accuracy: Rate | None
    recipe: Mapping[str, str]
    seconds: float


@dataclass(frozen=True)
class StudyRecord:
    """One study.

    Attributes:
      run: of the study.
      tags, params: of that run; a tag `space.<name>` wins over the param of that name.
      objective: what "best" is.
      trials: by number.
      versions: registered from its trials, the newest first.
    """

    run: Run
    tags: Mapping[str, str]
    params: Mapping[str, str]
    objective: Objective
    trials: Sequence[TrialRecord]
    versions: Sequence[ModelVersion]

    @property
    def name(self) -> str:
        """Of the study."""
        return self.tags["study_name"]

    @property
    def judged_on(self) -> str:
        """The split whose predictions make the objective."""
        return self.objective.judged_on

    @property
    def n_done(self) -> int:
        """Trials that count towards TRIALS: COMPLETE and PRUNED ones."""
        return sum(trial.state in ("COMPLETE", "PRUNED") for trial in self.trials)

    @property
    def counts(self) -> str:
        """How many trials ended how, in words."""
        states = [trial.state for trial in self.trials]
        return ", ".join(f"{states.count(s)} {word}" for s, word in _WORDS.items() if s in states)

    @cached_property
    def ranking(self) -> list[TrialRecord]:
        """COMPLETE trials, the best first; of equal ones the earlier."""
        sign = -1 if self.objective.direction == "maximize" else 1
        complete = [trial for trial in self.trials if trial.value is not None]
        return sorted(complete, key=lambda trial: (sign * trial.value, trial.number))

    @property
    def best(self) -> TrialRecord:
        """The first of the ranking."""
        return self.ranking[0]

    @property
    def best_run(self) -> Run:
        """The run of the best trial."""
        return Run(self.run.client, self.best.run_id)


def read_study(store: Store, experiment: str, config: StudyConfig, fingerprint: str) -> StudyRecord:
    """Reads a study's records; writes nothing.

    Args:
      store: of the records.
      experiment: its name is also the registered model's.
      config: of the study.
      fingerprint: of the data set at hand, whose pictures will stand beside the records.

    Raises:
      UserError: the study is not there, has no result, or was made on other data.
    """
    client, objective = store.client(), config.objective
    found = client.get_experiment_by_name(experiment)
    query = f"tags.study_name = {quoted(config.name)} AND tags.kind != 'seed'"
    runs = client.search_runs([found.experiment_id], query, max_results=10_000) if found else []
    study = next((run for run in runs if run.data.tags["kind"] == "study"), None)
    trials = [run for run in runs if run.data.tags["kind"] == "trial"]
    judged = [r for r in trials if _state(r) == "COMPLETE" and objective.metric in r.data.metrics]
    if study is None or not judged:
        raise UserError(
            f"Study {config.name!r} has no finished trial in experiment {experiment!r} of "
            f"{store.tracking_uri}; run `make sweep` first, or name another with STUDY= or NAME=."
        )
    if (seen := judged[0].data.tags["data_fingerprint"]) != fingerprint:
        raise UserError(
            f"Study {config.name!r} was made on data with fingerprint {seen[:12]}, and these have "
            f"{fingerprint[:12]}; give its own data with DATA=."
        )
    first, file = judged[0].info.run_id, f"confusion_matrix_{objective.judged_on}.json"
    matrix = stored_json(Run(client, first), file)["matrix"]
    n = sum(map(sum, matrix))  # images that judge a trial: the same for each
    # A param cannot change: a study whose space was widened says so in a tag.
    space = {key: text for key, text in study.data.tags.items() if key.startswith("space.")}
    return StudyRecord(
        Run(client, study.info.run_id),
        study.data.tags,
        study.data.params | space,
        objective,
        sorted((_trial(run, objective, n) for run in trials), key=lambda trial: trial.number),
        _versions(client, experiment, config.name),
    )


def _state(run: MlflowRun) -> str:
    return _STATES.get(run.info.status, "RUNNING")


def _trial(run: MlflowRun, objective: Objective, n: int) -> TrialRecord:
    info, metrics, params = run.info, run.data.metrics, run.data.params
    value = metrics.get(objective.metric) if _state(run) == "COMPLETE" else None
    share = metrics.get("cv_accuracy" if objective.cross_validated else "best_valid_accuracy")
    return TrialRecord(
        number=int(run.data.tags["trial_number"]),
        name=info.run_name,
        run_id=info.run_id,
        state=_state(run),
        value=value,
        accuracy=None if value is None else Rate(round(share * n), n),
        recipe={key: params[key] for key in RECIPE if key in params},
        seconds=((info.end_time or info.start_time) - info.start_time) / 1000,
    )


def _versions(client: MlflowClient, model: str, study: str) -> list[ModelVersion]:
    """Read one by one: a search leaves out the aliases."""
    query = f"name = '{model}' AND tags.study_name = {quoted(study)}"
    numbers = [version.version for version in client.search_model_versions(query)]
    each = [client.get_model_version(model, number) for number in numbers]
    return sorted(each, key=lambda version: int(version.version), reverse=True)
