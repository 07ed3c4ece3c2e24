"""A study read back: its ranking, its best run, its versions; and what is refused."""

from dataclasses import replace

import pytest

from nutclf.config import OBJECTIVES
from nutclf.errors import UserError
from nutclf.evaluate.intervals import Rate
from nutclf.track.studies import StudyRecord, TrialRecord, read_study


@pytest.fixture(scope="module")
def config(tiny_config):
    return replace(tiny_config, name="promoted")


@pytest.fixture(scope="module")
def record(with_champion, config, source):
    return read_study(with_champion, "nutclf", config, source.data.fingerprint)


def test_a_trial_is_read_as_it_was_recorded(record, with_champion):
    (trial,) = record.trials
    run = with_champion.client().get_run(trial.run_id)
    assert (trial.number, trial.state, trial.name) == (0, "COMPLETE", run.info.run_name)
    assert trial.value == run.data.metrics["best_valid_loss"]
    assert trial.accuracy.n == 12
    assert trial.accuracy.share == pytest.approx(run.data.metrics["best_valid_accuracy"])
    assert trial.recipe["lr_schedule"] == "cosine"
    assert trial.seconds > 0


def test_its_version_comes_with_its_alias_and_its_reason(record):
    (version,) = record.versions
    assert version.aliases == ["champion"]
    assert "there was none before" in version.description
    assert version.run_id == record.best_run.run_id


def test_a_study_that_is_not_there_is_refused(with_champion, config, source):
    fingerprint = source.data.fingerprint
    for experiment, name in (("nutclf", "nothing"), ("nutclf-drawn", "promoted")):
        with pytest.raises(UserError, match=r"no finished trial .* `make sweep`"):
            read_study(with_champion, experiment, replace(config, name=name), fingerprint)


def test_a_study_judged_otherwise_is_refused(with_champion, config, source):
    with pytest.raises(UserError, match="no finished trial"):
        other = replace(config, objective=OBJECTIVES["cv"])
        read_study(with_champion, "nutclf", other, source.data.fingerprint)


def test_other_data_are_refused(with_champion, config):
    with pytest.raises(UserError, match=r"and these have ffff.*DATA="):
        read_study(with_champion, "nutclf", config, "f" * 64)


def trial(number, value):
    state, rate = ("PRUNED", None) if value is None else ("COMPLETE", Rate(1, 2))
    return TrialRecord(number, f"t{number:03d}", "0", state, value, rate, {}, 1.0)


@pytest.mark.parametrize(("judge", "order"), [("cv", [2, 0, 3]), ("valid", [0, 3, 2])])
def test_the_best_comes_first_and_of_equals_the_earlier(judge, order):
    trials = [trial(0, 0.5), trial(1, None), trial(2, 0.7), trial(3, 0.5)]
    record = StudyRecord(None, {}, {}, OBJECTIVES[judge], trials, ())
    assert [one.number for one in record.ranking] == order
    assert record.best.number == order[0]
    assert record.judged_on == judge
