"""The charts: the best so far follows the objective, curves show what was recorded."""

import re

import pandas as pd
import pytest

from nutclf.config import OBJECTIVES
from nutclf.evaluate.intervals import Rate
from nutclf.report.charts import history_chart, training_charts
from nutclf.track.studies import StudyRecord, TrialRecord

CURVES = pd.DataFrame(
    {"train_loss": [2.0, 1.0, 0.9], "valid_loss": [2.1, 1.4, 1.5], "learning_rate": [2e-5] * 3},
    index=[1, 2, 3],
)


def history(judge, values):
    trials = [
        TrialRecord(i, f"t{i}", "0", "PRUNED" if v is None else "COMPLETE", v, Rate(1, 2), {}, 1.0)
        for i, v in enumerate(values)
    ]
    return history_chart(StudyRecord(None, {}, {}, OBJECTIVES[judge], trials, ()))["svg"]


def heights(svg, variable):
    """Heights on the page of the corners of a line, top 0."""
    path = re.search(rf'd="([^"]*)" style="fill: none; stroke: var\(--{variable}\)', svg)[1]
    return [float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)]


@pytest.mark.parametrize("judge", ["cv", "valid"])
def test_the_best_so_far_steps_when_a_trial_beats_it(judge):
    svg = history(judge, [0.5, None, 0.7, 0.4, None])
    assert re.findall("<title>(.*?)</title>", svg) == [
        "trial 0: 0.5000",
        "trial 2: 0.7000",
        "trial 3: 0.4000",
    ]
    line = heights(svg, "warm")
    assert len(set(line)) == 2
    assert line == sorted(line, reverse=judge == "cv"), "SVG counts downwards"


def test_one_trial_can_be_shown():
    assert "trial 0: 0.5000" in history("cv", [0.5])


def test_the_kept_epoch_is_marked_on_the_validation_curve():
    loss, rate = training_charts(CURVES, best_epoch=2.0)
    assert loss["legend"] == [("training", "train"), ("validation", "valid"), ("kept", "kept")]
    assert "<title>epoch 2: 1.4000</title>" in loss["svg"]
    assert rate["title"] == "learning rate"
    assert ">0.0000200<" in rate["svg"], "a constant has ticks around it"


def test_what_was_not_recorded_is_not_drawn():
    assert training_charts(pd.DataFrame(), None) == []
    (loss,) = training_charts(CURVES[["train_loss"]], None)
    assert loss["legend"] == [("training", "train")]


def test_colours_follow_the_page_and_nothing_leaves_the_chart():
    loss, _ = training_charts(CURVES, best_epoch=2.0)
    assert re.findall("#[0-9a-f]{6}", loss["svg"].replace("#m", "")) == []
    for part in ("<style", "url(", "font-family", "<g id="):
        assert part not in loss["svg"]
