"""Runs as the doctor sees them: what they say of their trial, and how they ended."""

import time
from dataclasses import dataclass
from datetime import datetime

from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType

from nutclf.track.store import Store

RUNNING = "RUNNING"


@dataclass(frozen=True)
class RunRecord:
    """What a run says of itself.

    Attributes:
      run_id: MLflow's.
      name: for people.
      status: MLflow's: RUNNING, FINISHED, ...
      state: the tag that repeats its trial's state; None where it has none.
      kind: "trial", "study", "seed", ...; "" for a run that is none of ours.
      study: name of its study.
      number: of its trial; None where it has none.
      worker: name of its process from `nutclf.track.liveness`; None where it does not say.
      started: by this machine's clock.
      ended: milliseconds, as MLflow counts; None while it has no end.
      deleted: a person put it into MLflow's bin.
    """

    run_id: str
    name: str
    status: str
    state: str | None
    kind: str
    study: str
    number: int | None
    worker: str | None
    started: datetime
    ended: int | None
    deleted: bool


def read_runs(store: Store) -> list[RunRecord]:
    """All runs of a store, those in the bin too, in the order of their start."""
    client = store.client()
    experiments = [
        experiment.experiment_id
        for experiment in client.search_experiments(view_type=ViewType.ALL, max_results=1000)
    ]
    runs, token = [], None
    while True:
        page = client.search_runs(
            experiments,
            run_view_type=ViewType.ALL,
            max_results=1000,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs += [_record(run) for run in page]
        if not (token := page.token):
            return runs


def end_run(
    store: Store, run: RunRecord, status: str, tags: dict[str, str], ended: datetime | None = None
) -> None:
    """Gives a run its status and tags; an end that it has already stays its end."""
    client = store.client()
    for key, value in tags.items():
        client.set_tag(run.run_id, key, value)
    when = ended.timestamp() if ended else time.time()
    client.set_terminated(run.run_id, status, run.ended or int(when * 1000))


def _record(run: MlflowRun) -> RunRecord:
    info, tags = run.info, run.data.tags
    number = tags.get("trial_number", "")
    return RunRecord(
        run_id=info.run_id,
        name=info.run_name or info.run_id,
        status=info.status,
        state=tags.get("trial_state"),
        kind=tags.get("kind", ""),
        study=tags.get("study_name", ""),
        number=int(number) if number.isdecimal() else None,
        worker=tags.get("worker"),
        started=datetime.fromtimestamp((info.start_time or 0) / 1000),
        ended=info.end_time,
        deleted=info.lifecycle_stage != "active",
    )
