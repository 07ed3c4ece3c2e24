"""A study as its records tell it: trials ranked, the best one's evaluation, what was promoted."""

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


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a study.

    Attributes:
      number: of the trial.
      name: of its run.
      run_id: of its run.
      state: COMPLETE, PRUNED, FAIL or RUNNING.
      value: of the objective; None unless COMPLETE.
      accuracy: on the images that judge it, with its interval; None unless COMPLETE.
      recipe: its values of `RECIPE`, as text.
      seconds: from its beginning to its end.
    """

    number: int
    name: str
    run_id: str
    state: str
    value: float | None
    accuracy: Rate | None
    recipe: Mapping[str, str]
    seconds: float


def n_judged(run: Run, objective: Objective) -> int:
    """How many images judge a trial of the study: the same for each."""
    found = stored_json(run, f"confusion_matrix_{objective.judged_on}.json")
    return sum(map(sum, found["matrix"]))


def trial_record(run: MlflowRun, objective: Objective, n: int) -> TrialRecord:
    """A trial as its run tells it.

    Args:
      run: of the trial.
      objective: of its study.
      n: images that judge it, from `n_judged`.
    """
    state, metrics = _STATES.get(run.info.status, "RUNNING"), run.data.metrics
    value = metrics.get(objective.metric) if state == "COMPLETE" else None
    rate = metrics.get("cv_accuracy" if objective.cross_validated else "best_valid_accuracy")
    ended = run.info.end_time or run.info.start_time
    return TrialRecord(
        number=int(run.data.tags["trial_number"]),
        name=run.info.run_name,
        run_id=run.info.run_id,
        state=state,
        value=value,
        accuracy=None if value is None else Rate(round(rate * n), n),
        recipe={key: run.data.params[key] for key in RECIPE if key in run.data.params},
        seconds=(ended - run.info.start_time) / 1000,
    )


_WORDS = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}


@dataclass(frozen=True)
class StudyRecord:
    """One study.

    Attributes:
      run: of the study.
      tags, params: of that run.
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
    def counts(self) -> str:
        """How many trials ended how, in words."""
        states = [trial.state for trial in self.trials]
        return ", ".join(
            f"{states.count(state)} {word}" for state, word in _WORDS.items() if state in states
        )

    @cached_property
    def ranking(self) -> list[TrialRecord]:
        """COMPLETE trials, the best first; of equal ones the earlier."""
        sign = -1 if self.objective.direction == "maximize" else 1
        finished = [trial for trial in self.trials if trial.value is not None]
        return sorted(finished, key=lambda trial: (sign * trial.value, trial.number))

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
    client = store.client()
    found = client.get_experiment_by_name(experiment)
    runs = _runs(client, found.experiment_id, config.name) if found else []
    study = next((run for run in runs if run.data.tags["kind"] == "study"), None)
    trials = [run for run in runs if run.data.tags["kind"] == "trial"]
    finished = [run for run in trials if config.objective.metric in run.data.metrics]
    if study is None or not finished:
        raise UserError(
            f"Study {config.name!r} has no finished trial in experiment {experiment!r} of "
            f"{store.tracking_uri}; run `make sweep` first, or name another with STUDY= or NAME=."
        )
    if (seen := finished[0].data.tags["data_fingerprint"]) != fingerprint:
        raise UserError(
            f"Study {config.name!r} was made on data with fingerprint {seen[:12]}, and these have "
            f"{fingerprint[:12]}; give its own data with DATA=."
        )
    n = n_judged(Run(client, finished[0].info.run_id), config.objective)
    rows = [trial_record(run, config.objective, n) for run in trials]
    rows.sort(key=lambda trial: trial.number)
    own, facts = Run(client, study.info.run_id), study.data
    versions = _versions(client, experiment, config.name)
    return StudyRecord(own, facts.tags, facts.params, config.objective, rows, versions)


def _runs(client: MlflowClient, experiment_id: str, study: str) -> list[MlflowRun]:
    query = f"tags.study_name = {quoted(study)} AND tags.kind != 'seed'"
    return list(client.search_runs([experiment_id], query, max_results=10_000))


def _versions(client: MlflowClient, model: str, study: str) -> list[ModelVersion]:
    """One by one: a search leaves out the aliases."""
    query = f"name = '{model}' AND tags.study_name = {quoted(study)}"
    found = client.search_model_versions(query)
    each = (client.get_model_version(model, version.version) for version in found)
    return sorted(each, key=lambda version: int(version.version), reverse=True)
