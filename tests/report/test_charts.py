"""The charts: the best so far follows the objective, curves show what was recorded."""

import re

import pandas as pd
import pytest

from nutclf.config import OBJECTIVES
from nutclf.evaluate.intervals import Rate
from nutclf.report.charts import cost_chart, history_chart, training_charts
from nutclf.track.studies import StudyRecord, TrialRecord

CURVES = pd.DataFrame(
    {"train_loss": [2.0, 1.0, 0.9], "valid_loss": [2.1, 1.4, 1.5], "learning_rate": [2e-5] * 3},
    index=[1, 2, 3],
)


def study(judge, values, probes=()):
    def record(number, value):
        state, rate = ("PRUNED", None) if value is None else ("COMPLETE", Rate(1, 2))
        return TrialRecord(number, f"t{number}", "0", state, value, rate, {}, 10.4)

    trials = [record(i, value) for i, value in enumerate(values)]
    probes = [record(None, value) for value in probes]
    return StudyRecord(None, {}, {}, OBJECTIVES[judge], trials, (), probes)


def history(judge, values):
    return history_chart(study(judge, values))["svg"]


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
    loss, rate = training_charts(CURVES, 2.0, {})
    assert loss["legend"] == [("training", "train"), ("validation", "valid"), ("kept", "kept")]
    assert "<title>epoch 2: 1.4000</title>" in loss["svg"]
    assert rate["title"] == "learning rate"
    assert ">0.0000200<" in rate["svg"], "a constant has ticks around it"


def test_the_best_probe_is_a_level_in_every_picture():
    probed = study("valid", [0.5, 0.7], probes=[0.9, 0.6])
    measured = {"best_valid_loss": 1.2, "best_valid_accuracy": 0.5}
    loss, rate = training_charts(CURVES, 2.0, measured)
    for chart in (history_chart(probed), cost_chart(probed), loss):
        assert ("best probe", "probe") in chart["legend"]
        assert "stroke-dasharray" in chart["svg"]
    assert ("best probe", "probe") not in rate["legend"]
    assert "best probe" not in str(history_chart(study("valid", [0.5]))["legend"])


def test_what_a_trial_cost_is_below_what_it_reached():
    chart = cost_chart(study("cv", [0.5, None, 0.7]))
    assert re.findall("<title>(.*?)</title>", chart["svg"]) == ["seconds 10: 0.5000"] * 2


def test_what_was_not_recorded_is_not_drawn():
    assert training_charts(pd.DataFrame(), None, {"best_valid_loss": 1.0}) == []
    (loss,) = training_charts(CURVES[["train_loss"]], None, {})
    assert loss["legend"] == [("training", "train")]


def test_colours_follow_the_page_and_nothing_leaves_the_chart():
    loss, _ = training_charts(CURVES, 2.0, {"best_valid_loss": 1.2})
    assert re.findall("#[0-9a-f]{6}", loss["svg"].replace("#m", "")) == []
    for part in ("<style", "url(", "font-family", "<g id="):
        assert part not in loss["svg"]
