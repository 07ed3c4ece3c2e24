"""A study is what was asked for: its first trial, its refusals, and draws that never repeat."""

import json
import threading
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from nutclf.config import OBJECTIVES, Augmentation, Objective, Recipe, SearchSpace, StudyConfig
from nutclf.errors import SweepFailed, UserError
from nutclf.search.claims import Claims
from nutclf.search.space import suggest
from nutclf.search.study import n_complete, open_study
from nutclf.search.sweep import sweep
from nutclf.search.trial import Outcome
from nutclf.track.liveness import hold

SPACE = SearchSpace(n_unfrozen=(0, 4, 11))
CONFIG = StudyConfig("paper", "mobilenetv2", SPACE, OBJECTIVES["valid"])
FACTS = {"data_fingerprint": "aa", "weights_digest": "bb"}


class Scripted:
    """Ends each trial as it is told to, after drawing a recipe; trains nothing."""

    def __init__(self, config, ending):
        self.config, self.ending, self.recipes = config, ending, []

    def run(self, study, trial):
        self.recipes.append(suggest(trial, self.config.space))
        state = self.ending(trial.number)
        value = 1 / (1 + trial.number) if state == "COMPLETE" else None
        study.tell(trial, value, state=TrialState[state])
        return Outcome(trial.number, state, value, "as told", 0.0)


def swept(store, n_trials, config=CONFIG, ending=lambda number: "COMPLETE"):
    """Opens the study, as a new process would, and tops it up; gives its runner and the lines."""
    runner, lines = Scripted(config, ending), []
    top_up(store, runner, config, n_trials, lines.append)
    return runner, lines


def top_up(store, runner, config, n_trials, say):
    study = open_study(store, config, FACTS)
    with hold(store.folder) as worker:
        claims = Claims(study, config, store.folder, worker, lambda number, state, reason: None)
        sweep(study, runner, config, n_trials, say, claims)


def studied(store, name="paper"):
    return optuna.load_study(study_name=name, storage=store.optuna_url).get_trials()


def test_trial_0_is_the_published_recipe(store):
    runner, _ = swept(store, 2)
    assert runner.recipes[0] == Recipe()
    assert runner.recipes[1] != Recipe()


def test_trial_0_is_the_baseline_of_the_study(store):
    config = replace(CONFIG, baseline=Recipe(n_unfrozen=11, epochs=5, lr_schedule="step"))
    assert swept(store, 1, config)[0].recipes == [config.baseline]


def test_the_baseline_is_there_once_however_often_the_study_is_opened(store):
    for _ in range(3):
        open_study(store, CONFIG, FACTS)
    (trial,) = studied(store)
    assert trial.state == TrialState.WAITING


def test_a_study_that_was_made_but_never_filled_gets_its_baseline(store):
    """As after a kill between the two steps."""
    optuna.create_study(storage=store.optuna_url, study_name="paper", direction="minimize")
    assert swept(store, 1)[0].recipes == [Recipe()]


def test_a_baseline_outside_the_space_is_refused_and_no_study_is_made(store):
    config = replace(CONFIG, space=SearchSpace(n_unfrozen=(0, 11)))
    with pytest.raises(UserError, match=r"n_unfrozen=4 .*\(0, 11\)"):
        open_study(store, config, FACTS)
    assert optuna.get_all_study_names(store.optuna_url) == []


@pytest.mark.parametrize(
    ("changes", "facts", "difference"),
    [
        (
            {"space": SearchSpace(n_unfrozen=(0, 4))},
            {},
            r"space.n_unfrozen: \[0, 4, 11\] -> \[0, 4\]",
        ),
        (
            {"objective": Objective("best_valid_accuracy", "maximize")},
            {},
            r'"minimize" -> "maximize"',
        ),
        ({"augmentation": Augmentation(zoom=0.2)}, {}, "augmentation.zoom: 0.15 -> 0.2"),
        ({"seed": 7}, {}, "seed: 0 -> 7"),
        ({"backbone": "densenet169"}, {}, "backbone"),
        ({}, {"data_fingerprint": "cc"}, 'data_fingerprint: "aa" -> "cc"'),
        ({}, {"weights_digest": "cc"}, "weights_digest"),
        ({}, {"more": "1"}, 'more: absent -> "1"'),
    ],
)
def test_a_changed_study_is_refused_and_the_way_out_named(store, changes, facts, difference):
    open_study(store, CONFIG, FACTS)
    with pytest.raises(UserError, match=f"'paper'.*{difference}.*NAME="):
        open_study(store, replace(CONFIG, **changes), FACTS | facts)


def test_only_what_changed_is_listed(store):
    open_study(store, CONFIG, FACTS)
    with pytest.raises(UserError) as refused:
        open_study(store, replace(CONFIG, seed=7), FACTS)
    assert "; " not in str(refused.value)


def test_the_same_settings_under_another_name_are_another_study(store):
    for name in ("paper", "another"):
        swept(store, 2, replace(CONFIG, name=name))
    assert len(studied(store)) == len(studied(store, "another")) == 2


def test_a_restart_goes_on_where_it_stopped_and_repeats_no_draw(store, copy_store, tmp_path):
    at_once = swept(copy_store(store.folder, tmp_path / "other"), 4)[0].recipes
    in_two = swept(store, 2)[0].recipes + swept(store, 4)[0].recipes
    assert in_two == at_once
    assert len(set(at_once)) == 4


def test_another_seed_draws_other_recipes(store):
    first = swept(store, 3)[0].recipes
    second = swept(store, 3, replace(CONFIG, name="other", seed=1))[0].recipes
    assert first[0] == second[0] == Recipe()
    assert not set(first[1:]) & set(second[1:])


def test_draws_stay_reproducible_when_the_search_goes_by_results(store, copy_store, tmp_path):
    """Beyond the first random trials the sampler learns from the others."""
    runs = [swept(copy_store(store.folder, tmp_path / name), 12)[0].recipes for name in "ab"]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 12


def test_three_workers_at_once_draw_no_recipe_twice(store):
    """Each with its own study object, as in processes; all ask at the same time."""
    swept(store, 1)
    runners = [Scripted(CONFIG, lambda number: "COMPLETE") for _ in range(3)]
    start = threading.Barrier(3)

    def work(runner):
        start.wait()
        top_up(store, runner, CONFIG, 15, lambda line: None)

    threads = [threading.Thread(target=work, args=(runner,)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drawn = [recipe for runner in runners for recipe in runner.recipes]
    assert len(drawn) == 14, "one of the 15 results was there before"
    assert len(set(drawn)) == len(drawn)


def test_a_sweep_tops_up_and_a_full_study_is_left_alone(store):
    assert len(swept(store, 3)[0].recipes) == 3
    runner, lines = swept(store, 3)
    assert (runner.recipes, lines) == ([], [])
    assert len(swept(store, 5)[0].recipes) == 2


def test_only_results_count(store):
    """Trials 1 and 2 are pruned and fail: five are needed for three results."""
    endings = {1: "PRUNED", 2: "FAIL"}
    runner, lines = swept(store, 3, ending=lambda number: endings.get(number, "COMPLETE"))
    states = [trial.state.name for trial in studied(store)]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE", "COMPLETE"]
    assert len(runner.recipes) == len(lines) == 5


def test_three_failures_in_a_row_end_a_sweep(store):
    with pytest.raises(SweepFailed, match=r"the last 3 trials failed.*as told"):
        swept(store, 20, ending=lambda number: "FAIL")
    assert len(studied(store)) == 3


def test_failures_with_a_result_between_them_do_not(store):
    swept(store, 2, ending=lambda number: "COMPLETE" if number in (2, 5) else "FAIL")
    assert len(studied(store)) == 6


def test_a_sweep_that_prunes_everything_ends(store):
    with pytest.raises(SweepFailed, match="10 trials brought no result"):
        swept(store, 2, ending=lambda number: "PRUNED")
    assert {trial.state for trial in studied(store)} == {TrialState.PRUNED}


def test_a_sweep_that_prunes_nearly_everything_ends_with_what_it_has(store):
    for expected in (10, 10):  # the second time nothing is added
        _, lines = swept(store, 2, ending=lambda number: "PRUNED" if number else "COMPLETE")
        assert "10 trials brought 1 results" in lines[-1]
        assert len(studied(store)) == expected


def test_the_progress_line_says_where_the_sweep_stands(store):
    _, lines = swept(store, 2)
    assert lines[0].startswith("[1/2] trial 0: 1.0000 · as told · ")
    assert "best 1.0000 (trial 0)" in lines[0]
    assert lines[0].endswith(" left")
    assert "best 0.5000 (trial 1)" in lines[1]
    assert lines[1].endswith("done")


def test_the_signature_is_kept_as_text_that_a_person_can_read(store):
    study = open_study(store, CONFIG, FACTS)
    signature = json.loads(study.user_attrs["signature"])
    assert signature["space.n_unfrozen"] == "[0, 4, 11]"
    assert "name" not in signature
    assert n_complete(study) == 0
