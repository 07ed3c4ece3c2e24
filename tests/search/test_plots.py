"""Optuna's plots as pages of their own, and what is said where there are none."""

import optuna
import pytest

from nutclf.config import OBJECTIVES
from nutclf.search.explain import importances, write_plots

NAMES = {"history.html", "importances.html", "parallel_coordinate.html", "slice.html"}
OBJECTIVE = OBJECTIVES["valid"]


def study_of(values):
    """A finished trial for each value; the rate makes it, the schedule does not."""
    study = optuna.create_study(direction="minimize")
    ranges = {
        "learning_rate": optuna.distributions.FloatDistribution(0, 1),
        "lr_schedule": optuna.distributions.CategoricalDistribution(["step", "cosine"]),
    }
    for number, value in enumerate(values):
        params = {"learning_rate": value, "lr_schedule": ("step", "cosine")[number % 2]}
        study.add_trial(optuna.trial.create_trial(value=value, params=params, distributions=ranges))
    return study


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots")
    left_out = write_plots(study_of([i / 20 for i in range(20)]), OBJECTIVE, folder)
    return folder, left_out


def test_each_plot_is_a_page_that_needs_no_network(drawn):
    folder, left_out = drawn
    assert left_out == {}
    assert {path.name for path in folder.iterdir()} == NAMES
    for path in folder.iterdir():
        page = path.read_text(encoding="utf-8")
        assert "<script src" not in page
        assert "plotly.js v" in page, "the library itself"


def test_the_axis_is_called_as_the_metric(drawn):
    folder, _ = drawn
    assert "best_valid_loss" in (folder / "history.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("n", [0, 1])
def test_with_nothing_to_compare_there_is_a_sentence_instead(tmp_path, n):
    left_out = write_plots(study_of([0.5] * n), OBJECTIVE, tmp_path)
    assert set(left_out) == NAMES
    assert f"{n} finished trial" in left_out["history.html"]
    assert list(tmp_path.iterdir()) == []


def test_a_few_trials_show_their_history_and_weigh_nothing(tmp_path):
    left_out = write_plots(study_of([0.1, 0.2, 0.3]), OBJECTIVE, tmp_path)
    assert set(left_out) == {"importances.html"}
    assert {path.name for path in tmp_path.iterdir()} == NAMES - set(left_out)


def test_what_makes_the_value_counts_most():
    found = importances(study_of([i / 20 for i in range(20)]))
    assert next(iter(found)) == "learning_rate"
    assert sum(found.values()) == pytest.approx(1)
    assert found["learning_rate"] > 0.9


def test_nothing_counts_where_nothing_can_be_told(recwarn):
    assert importances(study_of([])) == importances(study_of([0.5])) == {}
    assert importances(study_of([0.1, 0.2, 0.3])) == {}
    assert not recwarn.list
