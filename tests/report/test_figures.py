"""The page's charts: the best so far follows the objective, curves show what was recorded."""

import pandas as pd
import pytest

from nutclf.config import OBJECTIVES
from nutclf.evaluate.intervals import Rate
from nutclf.report.page import history_chart, training_charts
from nutclf.track.studies import StudyRecord, TrialRecord


def record(judge, values):
    trials = [
        TrialRecord(i, f"t{i}", "0", "PRUNED" if v is None else "COMPLETE", v, Rate(1, 2), {}, 1.0)
        for i, v in enumerate(values)
    ]
    return StudyRecord(None, {}, {}, OBJECTIVES[judge], trials, ())


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        ("cv", [(0, 0.5), (2, 0.7), (4, 0.7)]),
        ("valid", [(0, 0.5), (3, 0.4), (4, 0.4)]),
    ],
)
def test_the_best_so_far_steps_when_a_trial_beats_it(judge, expected):
    found = history_chart(record(judge, [0.5, None, 0.7, 0.4, None]))
    best, trials = (drawn.series for drawn in found.drawn)
    assert list(best.points) == expected
    assert list(trials.points) == [(0, 0.5), (2, 0.7), (3, 0.4)]
    assert trials.titles[1] == "t2: 0.7000"


def test_the_kept_epoch_is_marked():
    curves = pd.DataFrame({"train_loss": [2.0, 1.0, 0.9], "valid_loss": [2.1, 1.4, 1.5]}, [1, 2, 3])
    (loss,) = training_charts(curves, best_epoch=2)
    assert [drawn.series.name for drawn in loss.drawn] == ["training", "validation", "kept"]
    assert list(loss.drawn[2].series.points) == [(2, 1.4)]


def test_what_was_not_recorded_is_not_drawn():
    assert training_charts(pd.DataFrame(), None) == []
    (rate,) = training_charts(pd.DataFrame({"learning_rate": [0.1]}, [1]), None)
    assert rate.title == "learning rate"
