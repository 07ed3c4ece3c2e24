"""Optuna's trials and MLflow's runs, held against each other; Optuna's record counts."""

import functools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import optuna
from optuna.trial import FrozenTrial, TrialState

from nutclf.search.claims import WORKER
from nutclf.search.study import open_storage
from nutclf.search.trial import RUN_ID
from nutclf.track.doctor.databases import Backups, sqlite_file
from nutclf.track.doctor.finding import Finding
from nutclf.track.doctor.records import RUNNING, RunRecord, end_run, read_runs
from nutclf.track.liveness import alive
from nutclf.track.outbox import Outbox
from nutclf.track.runs import KINDS, STATUS
from nutclf.track.store import Store

GRACE = timedelta(days=1)
"""A record that says RUNNING and names no process is taken for dead when it is older than this."""


@dataclass
class Pairs:
    """Everything that both libraries recorded, as read at one time.

    Attributes:
      store: of the records.
      backups: of its databases.
      runs: of MLflow.
      studies: of Optuna, by name.
      trials: by study and number.
      now: of the reading; times in both libraries are compared with it.
    """

    store: Store
    backups: Backups
    runs: list[RunRecord]
    studies: dict[str, optuna.Study]
    trials: dict[tuple[str, int], FrozenTrial]
    now: datetime

    @classmethod
    def read(cls, store: Store, backups: Backups) -> "Pairs":
        """Reads both; a database that is not there has no records."""
        local = store.tracking_uri.startswith("sqlite")
        # Runs first: a trial is recorded before its run, so none is taken for one without.
        runs = [] if local and sqlite_file(store.tracking_uri) is None else read_runs(store)
        studies = {}
        if not store.optuna_url.startswith("sqlite") or sqlite_file(store.optuna_url):
            storage = open_storage(store.optuna_url)
            names = optuna.get_all_study_names(storage)
            studies = {name: optuna.load_study(study_name=name, storage=storage) for name in names}
        trials = {
            (name, trial.number): trial
            for name, study in studies.items()
            for trial in study.get_trials(deepcopy=False)
        }
        return cls(store, backups, runs, studies, trials, datetime.now())

    def of(self, name: str, trial: FrozenTrial) -> list[RunRecord]:
        """The runs of a trial: the one that it names, else those that name it."""
        if (run_id := self.run_id_of(trial)) is not None:
            return [run for run in self.runs if run.run_id == run_id]
        return [
            run for run in self.runs if run.kind == "trial" and key_of(run) == (name, trial.number)
        ]

    def run_id_of(self, trial: FrozenTrial) -> str | None:
        """The run that a trial names, also where it was begun while MLflow's server was away."""
        named = trial.user_attrs.get(RUN_ID)
        return named and Outbox(self.store.folder / "outbox", KINDS).real_id(named)

    def is_gone(self, worker: str | None, started: datetime) -> bool:
        """Whether the process behind a record that says RUNNING has ended."""
        if worker is not None and alive(self.store.folder, worker):
            return False
        if worker is not None and sqlite_file(self.store.optuna_url):
            return True
        # No name; or the store is a server's, and the process may be at work on another machine.
        return self.now - started > GRACE

    def tell(
        self, run: RunRecord, state: str, reason: str | None, ended: datetime | None = None
    ) -> None:
        """Gives a run the status and the tags that belong to a state of Optuna's."""
        self.backups.before_changing(self.store.tracking_uri)
        tags = {"trial_state": state} | ({"reason": reason} if reason else {})
        end_run(self.store, run, STATUS[state], tags, ended)


def find_disagreements(pairs: Pairs) -> list[Finding]:
    """Runs whose status, or whose tag, is not that of their trial's end."""
    found = []
    for (name, number), trial in pairs.trials.items():
        if not trial.state.is_finished():
            continue
        for run in pairs.of(name, trial):
            now, due = (run.status, run.state), (STATUS[trial.state.name], trial.state.name)
            worker = trial.user_attrs.get(WORKER)
            closing = run.status == RUNNING and worker and alive(pairs.store.folder, worker)
            if now != due and not run.deleted and not closing:
                what = (
                    f"trial {number} of study {name!r} is {due[1]}, and its run says {now[0]}, "
                    f"trial_state {now[1]}"
                )
                repair = functools.partial(_follow, pairs, run, trial)
                found.append(Finding("disagreement", what, repair))
    return found


def find_unpaired(pairs: Pairs) -> list[Finding]:
    """Trials whose run, and runs whose trial, is not there; nothing can bring those back."""
    known = {run.run_id for run in pairs.runs}
    alone, lost = defaultdict(list), defaultdict(list)
    for (name, number), trial in pairs.trials.items():
        run_id = pairs.run_id_of(trial)
        has_result = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if run_id not in known if run_id else has_result and not pairs.of(name, trial):
            alone[name].append(number)
    for run in pairs.runs:
        trial = pairs.trials.get(key_of(run))
        if (
            run.kind == "trial"
            and not run.deleted
            and not (trial and run in pairs.of(run.study, trial))
        ):
            lost[run.study].append(run.name)
    return [
        Finding("unpaired", f"study {name!r}: no run of trial {_listed(numbers)}")
        for name, numbers in alone.items()
    ] + [
        Finding("unpaired", f"study {name!r}: no trial of run {_listed(names)}")
        for name, names in lost.items()
    ]


def key_of(run: RunRecord) -> tuple[str, int | None]:
    """The trial that a run says it belongs to: study and number."""
    return run.study, run.number


def _listed(things: Iterable[object]) -> str:
    return ", ".join(map(str, things))


def _follow(pairs: Pairs, run: RunRecord, trial: FrozenTrial) -> str:
    state = trial.state.name
    pairs.tell(run, state, trial.user_attrs.get("reason"), trial.datetime_complete)
    return f"run {run.name!r} is {STATUS[state]}, trial_state {state}"
