"""Trials and runs that disagree, that were left RUNNING, or that lost each other."""

from dataclasses import dataclass, replace
from datetime import timedelta

import optuna
import pytest
from optuna.trial import TrialState

from nutclf.search.claims import ABANDONED, RETRY_OF, WORKER
from nutclf.search.pairs import GRACE, Pairs, find_disagreements, find_unpaired
from nutclf.search.stale import find_stale_runs, find_stale_trials
from nutclf.search.trial import RUN_ID
from nutclf.track.doctor.databases import Backups
from nutclf.track.liveness import hold
from nutclf.track.runs import STATUS, Run, study_run, trial_run

TAGS = {"data_fingerprint": "aa", "data_source": "photographs"}
FINDERS = (find_stale_trials, find_stale_runs, find_disagreements, find_unpaired)


@dataclass
class Sweeping:
    """A study with its run; makes trials with their runs, as a sweep does."""

    store: object
    study: optuna.Study
    parent: Run

    def trial(self, worker=None, paired=True):
        trial = self.study.ask({"rate": optuna.distributions.FloatDistribution(0, 1)})
        if worker:
            trial.set_user_attr(WORKER, worker)
        run = trial_run(self.parent, f"t{trial.number:03d}", trial.number, TAGS)
        if paired:
            trial.set_user_attr(RUN_ID, run.run_id)
        return trial, run

    def ended(self, state, run_state=None, reason=None):
        trial, run = self.trial()
        if reason:
            trial.set_user_attr("reason", reason)
        value = 0.5 if state == "COMPLETE" else None
        self.study.tell(trial, value, state=TrialState[state])
        run.end(run_state or state)
        return trial, run

    def read(self, later=timedelta()):
        found = Pairs.read(self.store, Backups(self.store.folder, lambda line: None))
        found.now += later
        return found

    def found(self, later=timedelta()):
        pairs = self.read(later)
        whats = {finder.__name__: [finding.what for finding in finder(pairs)] for finder in FINDERS}
        return {name: what for name, what in whats.items() if what}

    def repair(self, later=timedelta()):
        """Repairs one kind after the other, as the doctor does; what was done."""
        return [
            finding.repair()
            for finder in FINDERS
            for finding in finder(self.read(later))
            if finding.repair
        ]

    def info(self, run):
        found = run.client.get_run(run.run_id)
        return found.info.status, found.data.tags.get("trial_state"), found.data.tags.get("reason")


@pytest.fixture
def sweeping(store):
    study = optuna.create_study(storage=store.optuna_url, study_name="tiny")
    parent = study_run(store, store.experiment_id("nutclf"), "tiny", TAGS)
    return Sweeping(store, study, parent)


def test_a_healthy_study_has_nothing_to_find(sweeping):
    for state in STATUS:
        sweeping.ended(state)
    with hold(sweeping.store.folder) as worker:
        sweeping.trial(worker)
        assert sweeping.found() == {}
    sweeping.study.enqueue_trial({"rate": 0.5})
    assert "find_disagreements" not in sweeping.found()


def test_a_trial_whose_process_is_gone_is_failed_with_its_run_and_queued_again(sweeping):
    trial, run = sweeping.trial("gone")
    assert sweeping.found() == {
        "find_stale_trials": ["trial 0 of study 'tiny' says RUNNING, and its process is gone"],
        "find_stale_runs": ["run 'tiny' of study 'tiny' says RUNNING, and its process is gone"],
    }
    sweeping.repair()
    failed, again = sweeping.study.trials
    assert (failed.state, failed.user_attrs["reason"]) == (TrialState.FAIL, ABANDONED)
    assert sweeping.info(run) == ("FAILED", "FAIL", ABANDONED)
    assert again.state == TrialState.WAITING
    assert again.user_attrs[RETRY_OF] == 0
    assert again.system_attrs["fixed_params"] == trial.params
    assert sweeping.info(sweeping.parent)[0] == "FINISHED", "a study at rest"
    assert sweeping.found() == {}
    assert sweeping.repair() == []


def test_a_run_that_its_trial_does_not_name_yet_is_failed_with_it(sweeping):
    """The process died between the two records."""
    _, run = sweeping.trial("gone", paired=False)
    sweeping.repair()
    assert sweeping.info(run) == ("FAILED", "FAIL", ABANDONED)


def test_a_trial_of_a_living_process_is_left_alone(sweeping):
    with hold(sweeping.store.folder) as worker:
        _, run = sweeping.trial(worker)
        _, gone = sweeping.trial("gone")
        sweeping.repair(later=2 * GRACE)
        states = [trial.state for trial in sweeping.study.trials[:2]]
        assert states == [TrialState.RUNNING, TrialState.FAIL]
        assert sweeping.info(run)[0] == sweeping.info(sweeping.parent)[0] == "RUNNING"
        assert sweeping.info(gone)[0] == "FAILED"


def test_a_trial_without_a_name_is_dead_after_the_grace_only(sweeping):
    sweeping.trial()
    assert sweeping.found(later=GRACE - timedelta(minutes=1)) == {}
    found = sweeping.found(later=GRACE + timedelta(minutes=1))
    assert set(found) == {"find_stale_trials", "find_stale_runs"}
    assert len(found["find_stale_runs"]) == 1, "the study's; the trial's ends with its trial"


def test_a_trial_that_a_sweep_took_back_in_the_meantime_is_left_to_it(sweeping):
    """Both look at the same time; the sweep is faster."""
    trial, _ = sweeping.trial("gone")
    (finding,) = find_stale_trials(sweeping.read())
    sweeping.study.tell(trial, 0.5)
    assert "a sweep" in finding.repair()
    assert [trial.state for trial in sweeping.study.trials] == [TrialState.COMPLETE]


def test_what_others_left_open_is_not_judged(sweeping):
    client = sweeping.store.client()
    run = client.create_run(sweeping.store.experiment_id("of others"))
    sweeping.parent.close("FINISHED")
    assert sweeping.repair(later=2 * GRACE) == []
    assert client.get_run(run.info.run_id).info.status == "RUNNING"


def test_a_run_that_was_begun_without_its_server_is_known_by_its_real_name(sweeping):
    trial, run = sweeping.trial()
    trial.set_user_attr(RUN_ID, "pending-1")
    sweeping.study.tell(trial, 0.5)
    sweeping.parent.close("FINISHED")
    assert set(sweeping.found()) == {"find_unpaired"}
    (sweeping.store.folder / "outbox" / "pending-1").mkdir(parents=True)
    (sweeping.store.folder / "outbox" / "pending-1" / "run_id.txt").write_text(run.run_id)
    assert set(sweeping.found()) == {"find_disagreements"}
    sweeping.repair()
    assert sweeping.found() == {}


@pytest.mark.parametrize("kind", ["seed", "rung"])
def test_a_run_that_is_no_trials_ends_by_its_workers_name_or_by_the_grace(sweeping, kind):
    named = trial_run(sweeping.parent, "named", 0, TAGS | {WORKER: "gone"}, kind=kind)
    nameless = trial_run(sweeping.parent, "nameless", 0, TAGS, kind=kind)
    with hold(sweeping.store.folder) as worker:
        living = trial_run(sweeping.parent, "living", 0, TAGS | {WORKER: worker}, kind=kind)
        sweeping.repair()
        assert sweeping.info(named) == ("FAILED", "FAIL", ABANDONED)
        assert sweeping.info(nameless)[0] == sweeping.info(living)[0] == "RUNNING"
        sweeping.repair(later=2 * GRACE)
        assert sweeping.info(nameless)[0] == "FAILED"
        assert sweeping.info(living)[0] == "RUNNING"


def test_a_run_follows_its_trial(sweeping):
    """All nine combinations of three ends."""
    ended = [
        (state, run_state, sweeping.ended(state, run_state, reason="because")[1])
        for state in STATUS
        for run_state in STATUS
    ]
    times = [run.client.get_run(run.run_id).info.end_time for *_, run in ended]
    assert len(sweeping.repair()) == 6
    for (state, _, run), trial, time in zip(ended, sweeping.study.trials, times, strict=True):
        assert sweeping.info(run)[:2] == (STATUS[state], state)
        assert run.client.get_run(run.run_id).info.end_time == time, "it ended when it ended"
        assert trial.state == TrialState[state], "Optuna's record is not touched"
    assert sweeping.repair() == []


def test_the_tag_follows_too(sweeping):
    _, run = sweeping.ended("PRUNED")
    run.tags({"trial_state": "RUNNING"})
    (did,) = sweeping.repair()
    assert "t000" in did
    assert sweeping.info(run)[:2] == ("KILLED", "PRUNED")


def test_a_run_left_open_by_a_process_that_died_behind_its_trials_end_is_closed(sweeping):
    trial, run = sweeping.trial("gone")
    sweeping.study.tell(trial, 0.5)
    sweeping.repair()
    found = run.client.get_run(run.run_id)
    assert sweeping.info(run)[:2] == ("FINISHED", "COMPLETE")
    complete = sweeping.study.trials[0].datetime_complete
    assert abs(found.info.end_time / 1000 - complete.timestamp()) < 1


def test_a_run_that_its_process_is_just_closing_is_left_to_it(sweeping):
    with hold(sweeping.store.folder) as worker:
        trial, _ = sweeping.trial(worker)
        sweeping.study.tell(trial, 0.5)
        assert sweeping.found() == {}
    assert "find_disagreements" in sweeping.found()


def test_a_run_in_the_bin_is_let_be(sweeping):
    _, run = sweeping.ended("COMPLETE", "FAIL")
    run.client.delete_run(run.run_id)
    assert sweeping.repair() == []
    assert sweeping.found() == {}


def test_a_trial_without_its_run_and_a_run_without_its_trial_are_reported(sweeping):
    trial, _ = sweeping.trial()
    trial.set_user_attr(RUN_ID, "0" * 32)
    sweeping.study.tell(trial, 0.5)
    trial_run(sweeping.parent, "t007", 7, TAGS).end("COMPLETE")
    found = sweeping.found()
    assert found == {
        "find_unpaired": [
            "study 'tiny': no run of trial 0",
            "study 'tiny': no trial of run t000, t007",
        ]
    }
    assert sweeping.repair() == []
    assert sweeping.found() == found


def test_an_older_run_with_the_same_number_is_not_changed(sweeping):
    """Optuna's database was deleted, and the same sweep run again: its runs are of other trials."""
    old = trial_run(sweeping.parent, "t000 of before", 0, TAGS)
    old.end("COMPLETE")
    sweeping.ended("FAIL")
    assert sweeping.found() == {"find_unpaired": ["study 'tiny': no trial of run t000 of before"]}
    sweeping.repair()
    assert sweeping.info(old)[:2] == ("FINISHED", "COMPLETE")


def test_without_optunas_database_each_run_is_without_a_trial(sweeping):
    sweeping.ended("COMPLETE")
    for file in sweeping.store.folder.glob("optuna.db*"):
        file.unlink()
    assert list(sweeping.found()) == ["find_unpaired"]
    assert not (sweeping.store.folder / "optuna.db").exists(), "looking makes none"


def test_both_databases_are_copied_before_a_trial_is_failed(sweeping):
    sweeping.trial("gone")
    sweeping.repair()
    names = {file.name for file in (sweeping.store.folder / "backups").rglob("*.db")}
    assert names == {"mlflow.db", "optuna.db"}
    copy = next((sweeping.store.folder / "backups").rglob("optuna.db"))
    before = optuna.load_study(study_name="tiny", storage=f"sqlite:///{copy}")
    assert [trial.state for trial in before.trials] == [TrialState.RUNNING]


def test_at_a_server_a_name_that_is_unknown_here_may_be_of_another_machine(sweeping):
    """Processes at PostgreSQL may be anywhere: their locks are not in this folder."""
    sweeping.trial("elsewhere")
    pairs = sweeping.read()
    pairs.store = replace(sweeping.store, optuna_url="postgresql://host/optuna")
    assert find_stale_trials(pairs) == find_stale_runs(pairs) == []
    pairs.now += 2 * GRACE
    assert len(find_stale_trials(pairs)) == len(find_stale_runs(pairs)) == 1
