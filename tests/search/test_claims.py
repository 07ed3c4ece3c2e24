"""Claims: a trial that a dead process left is found, failed and run again."""

import pytest
from optuna.trial import TrialState

from nutclf.config import OBJECTIVES, SearchSpace, StudyConfig
from nutclf.search.claims import ABANDONED, MAX_RETRIES, RETRIES, RETRY_OF, WORKER, Claims
from nutclf.search.space import suggest
from nutclf.search.study import open_study
from nutclf.track.liveness import hold

CONFIG = StudyConfig("claims", "mobilenetv2", SearchSpace(n_unfrozen=(0, 4)), OBJECTIVES["valid"])


@pytest.fixture
def study(store):
    return open_study(store, CONFIG, {})


@pytest.fixture
def closed():
    """What was asked to be closed."""
    return []


@pytest.fixture
def claims(store, study, closed):
    with hold(store.folder) as worker:
        yield Claims(study, CONFIG, store.folder, worker, lambda *call: closed.append(call))


def die(study, worker="gone"):
    """A trial as a killed process leaves it: drawn, RUNNING, its worker not there any more."""
    trial = study.ask()
    trial.set_user_attr(WORKER, worker)
    return trial, suggest(trial, CONFIG.space)


def test_a_claim_names_its_worker(claims, study):
    trial = claims.next(2)
    assert study.trials[trial.number].user_attrs[WORKER] == claims._worker


def test_the_recipe_of_a_dead_process_is_run_again(claims, study, closed):
    dead, recipe = die(study)
    again = claims.next(1)
    assert study.trials[dead.number].state == TrialState.FAIL
    assert closed == [(dead.number, "FAIL", ABANDONED)]
    assert again.number != dead.number
    assert suggest(again, CONFIG.space) == recipe
    assert again.user_attrs[RETRY_OF] == dead.number


def test_a_process_that_died_in_claiming_is_found_too(claims, study):
    dead = study.ask()  # the baseline, queued, and nobody's
    again = claims.next(1)
    assert study.trials[dead.number].state == TrialState.FAIL
    assert suggest(again, CONFIG.space) == CONFIG.baseline


def test_a_recipe_that_kills_its_process_is_given_up(claims, study):
    for _ in range(MAX_RETRIES + 1):
        die(study)
        claims.retry_abandoned()
    failed = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert [trial.user_attrs.get(RETRIES, 0) for trial in failed] == [0, 1, 2, 3]
    assert TrialState.WAITING not in {trial.state for trial in study.trials}


def test_a_recipe_is_neither_lost_nor_doubled_by_death_in_queuing_it(claims, study, monkeypatch):
    dead, recipe = die(study)

    def killed(*arguments, **named):
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", killed)
        with pytest.raises(SystemExit):
            claims.retry_abandoned()
    claims.retry_abandoned()
    assert study.trials[dead.number].state == TrialState.FAIL
    assert study.trials[dead.number].user_attrs["reason"] == ABANDONED
    waiting = [trial for trial in study.trials if trial.state == TrialState.WAITING]
    assert [trial.user_attrs[RETRY_OF] for trial in waiting] == [dead.number]
    assert suggest(claims.next(1), CONFIG.space) == recipe


def test_a_living_process_keeps_its_trial(claims, study, store, closed):
    with hold(store.folder) as other:
        die(study, other)
        claims.retry_abandoned()
    assert study.trials[0].state == TrialState.RUNNING
    assert closed == []


def test_no_more_are_handed_out_than_can_be_missing(claims, study, monkeypatch):
    first = claims.next(1)

    def finish(seconds):
        study.tell(first, 0.5)

    monkeypatch.setattr("nutclf.search.claims.time.sleep", finish)
    assert claims.next(1) is None
    assert len(study.trials) == 1
