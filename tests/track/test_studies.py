"""A study read back: its ranking, its best run, its versions; and what is refused."""

from dataclasses import replace

import pytest

from nutclf.config import OBJECTIVES
from nutclf.errors import UserError
from nutclf.evaluate.intervals import Rate
from nutclf.track.runs import Run
from nutclf.track.studies import StudyRecord, TrialRecord, read_study


@pytest.fixture(scope="module")
def config(tiny_config):
    return replace(tiny_config, name="promoted")


def test_a_study_is_read_as_it_was_recorded(with_champion, config, source):
    record = read_study(with_champion, "nutclf", config, source.data.fingerprint)
    (trial,) = record.trials
    run = with_champion.client().get_run(trial.run_id)
    assert (trial.number, trial.state, trial.name) == (0, "COMPLETE", run.info.run_name)
    assert trial.value == run.data.metrics["best_valid_loss"]
    assert trial.accuracy.n == 12
    assert trial.accuracy.share == pytest.approx(run.data.metrics["best_valid_accuracy"])
    assert trial.recipe["lr_schedule"] == "cosine"
    assert trial.seconds > 0
    (version,) = record.versions
    assert version.aliases == ["champion"]
    assert "there was none before" in version.description
    assert version.run_id == record.best_run.run_id


def test_a_widened_space_is_read_from_its_tag(with_champion, copy_store, tmp_path, config, source):
    store = copy_store(with_champion.folder, tmp_path / "store")
    own = read_study(store, "nutclf", config, source.data.fingerprint).run
    run = Run(store.client(), own.run_id)
    run.params({"space.n_unfrozen": "(0, 4)", "space.epochs": "(1, 3)"})
    run.tags({"space.n_unfrozen": "(0, 4, 8)"})
    params = read_study(store, "nutclf", config, source.data.fingerprint).params
    assert (params["space.n_unfrozen"], params["space.epochs"]) == ("(0, 4, 8)", "(1, 3)")


@pytest.mark.parametrize(
    ("experiment", "changed"),
    [
        ("nutclf", {"name": "nothing"}),
        ("nutclf-drawn", {}),
        ("nutclf", {"objective": OBJECTIVES["cv"]}),
    ],
)
def test_a_study_without_a_result_of_its_kind_is_refused(
    with_champion, config, source, experiment, changed
):
    with pytest.raises(UserError, match=r"no finished trial .* `make sweep`"):
        other = replace(config, **changed)
        read_study(with_champion, experiment, other, source.data.fingerprint)


def test_other_data_are_refused(with_champion, config):
    with pytest.raises(UserError, match=r"and these have ffff.*DATA="):
        read_study(with_champion, "nutclf", config, "f" * 64)


def trial(number, value, state="COMPLETE"):
    return TrialRecord(number, f"t{number:03d}", "0", state, value, Rate(1, 2), {}, 1.0)


@pytest.mark.parametrize(("judge", "order"), [("cv", [2, 0, 3]), ("valid", [0, 3, 2])])
def test_the_best_comes_first_and_of_equals_the_earlier(judge, order):
    trials = [trial(0, 0.5), trial(1, None, "PRUNED"), trial(2, 0.7), trial(3, 0.5)]
    record = StudyRecord(None, {}, {}, OBJECTIVES[judge], [*trials, trial(4, None, "FAIL")], ())
    assert [one.number for one in record.ranking] == order
    assert record.best.number == order[0]
    assert record.n_done == 4, "a failed trial does not count"
    assert record.counts == "3 complete, 1 pruned, 1 failed"
