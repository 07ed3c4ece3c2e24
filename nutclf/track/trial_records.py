"""A trial as its run tells it: what it was, what it scored, and how sure that is."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from mlflow.entities import Run as MlflowRun

from nutclf.config import Objective, SearchSpace
from nutclf.evaluate.intervals import Rate
from nutclf.track.evaluation import stored_json
from nutclf.track.runs import STATUS, Run

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
