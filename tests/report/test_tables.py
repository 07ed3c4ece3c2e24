"""The page's tables: what was searched, who is ahead, what is taken for what."""

import pytest

from nutclf.config import OBJECTIVES
from nutclf.evaluate.intervals import Rate
from nutclf.report.page import fixed, matrix, ranking, searched, short
from nutclf.track.studies import StudyRecord, TrialRecord

PARAMS = {
    "name": "s",
    "backbone": "tiny",
    "space.n_unfrozen": "(0, 4, 11)",
    "space.learning_rate": "(0.0001, 0.003)",
    "space.lr_schedule": "('step',)",
    "baseline.n_unfrozen": "4",
    "baseline.lr_schedule": "step",
    "baseline.batch_size": "64",
}


def trial(number, right):
    recipe = {"n_unfrozen": "4", "learning_rate": "0.001392151260736277"}
    rate = Rate(right, 50)
    return TrialRecord(number, "t", "0", "COMPLETE", rate.share, rate, recipe, 1.0)


@pytest.fixture
def record():
    trials = [trial(0, 40), trial(1, 48), trial(2, 44)]
    return StudyRecord(None, {}, PARAMS, OBJECTIVES["cv"], trials, ())


def test_ranges_and_choices_are_searched_and_a_single_choice_is_not(record):
    assert searched(record) == {
        "n_unfrozen": "0, 4, 11",
        "learning_rate": "0.0001 to 0.003, log",
    }


def test_what_was_not_searched_is_the_same_for_all(record):
    assert fixed(record) == {
        "backbone": "tiny",
        "baseline.lr_schedule": "step",
        "baseline.batch_size": "64",
    }


def test_the_ranking_draws_intervals_on_one_axis(record):
    rows = ranking(record, 2)
    assert [row.name for row in rows] == ["t001", "t002"]
    assert rows[0].recipe == ("4", "0.00139")
    first, second = rows
    assert (second.low, first.high) == (0, 100)
    assert first.low < first.mid < first.high
    width = Rate(48, 50).interval[1] - Rate(44, 50).interval[0]
    assert first.mid == pytest.approx(100 * (0.96 - Rate(44, 50).interval[0]) / width, abs=0.1)


def test_a_matrix_has_shares_of_its_rows_and_the_accuracy():
    found = matrix("cv", {"classes": ["a", "b"], "matrix": [[3, 1], [0, 0]]})
    assert found.rows == [[(3, 0.75), (1, 0.25)], [(0, 0), (0, 0)]]
    assert (found.split, found.rate) == ("out of fold", Rate(3, 4))


def test_numbers_are_short_and_words_stay():
    assert [short(text) for text in ("0.0013921", "64", "plateau", "")] == [
        "0.00139",
        "64",
        "plateau",
        "",
    ]
