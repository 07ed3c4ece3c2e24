"""A study is what was asked for: its first trial, its refusals, its widening, draws that differ."""

import dataclasses
import json
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from nutclf.config import (
    OBJECTIVES,
    WHOLE,
    Augmentation,
    Objective,
    Recipe,
    SearchSpace,
    StudyConfig,
    View,
)
from nutclf.errors import UserError
from nutclf.search import study as study_module
from nutclf.search.study import (
    as_parameters,
    is_baseline,
    open_study,
    queue_again,
    sampler_for,
    signature,
    stored_digest,
    suggest,
)

SPACE = SearchSpace(n_unfrozen=(0, 4, 11))
CONFIG = StudyConfig("paper", "mobilenetv2", SPACE, OBJECTIVES["valid"])
FACTS = {"data_fingerprint": "aa", "weights_digest": "bb"}


def swept(store, n_trials, config=CONFIG):
    """Opens the study, as a new process would, and adds trials; the recipes drawn."""
    study, _ = open_study(store, config, FACTS)
    recipes = []
    for _ in range(n_trials):
        trial = study.ask()
        study.sampler = sampler_for(config, trial.number)
        recipes.append(suggest(trial, config, is_baseline(trial)))
        trial.set_user_attr("mlflow_run_id", f"run {trial.number}")
        study.tell(trial, 1 / (1 + trial.number))
    return recipes


def studied(store, name="paper"):
    return optuna.load_study(study_name=name, storage=store.optuna_url).get_trials()


def test_trial_0_is_the_baseline_the_published_recipe_unless_said_otherwise(store):
    first, second = swept(store, 2)
    assert first == Recipe() != second
    other = replace(CONFIG, name="other", baseline=Recipe(n_unfrozen=11, lr_schedule="step"))
    assert swept(store, 1, other) == [other.baseline]


def test_the_baseline_is_queued_once_however_often_the_study_is_opened(store):
    for _ in range(3):
        open_study(store, CONFIG, FACTS)
    (trial,) = studied(store)
    assert trial.state == TrialState.WAITING


def test_a_study_that_was_made_but_never_filled_gets_its_baseline(store):
    """As after a kill between the two steps."""
    optuna.create_study(storage=store.optuna_url, study_name="paper", direction="minimize")
    assert swept(store, 1) == [Recipe()]


def test_a_baseline_outside_the_space_is_refused_and_no_study_is_made(store):
    config = replace(CONFIG, space=SearchSpace(n_unfrozen=(0, 11)))
    with pytest.raises(UserError, match=r"n_unfrozen=4 .*\(0, 11\)"):
        open_study(store, config, FACTS)
    assert optuna.get_all_study_names(store.optuna_url) == []


@pytest.mark.parametrize(
    ("changes", "facts", "difference"),
    [
        ({"space": SearchSpace((0, 4))}, {}, r"space.n_unfrozen: \[0, 4, 11\] -> \[0, 4\]"),
        ({"space": replace(SPACE, epochs=(4, 20))}, {}, r"space.epochs: \[4, 12\] -> \[4, 20\]"),
        ({"objective": Objective("best_valid_accuracy", "maximize")}, {}, '"minimize" -> "max'),
        ({"augmentation": Augmentation(zoom=0.2)}, {}, "augmentation.zoom: 0.15 -> 0.2"),
        ({"seed": 7}, {}, "seed: 0 -> 7"),
        ({"backbone": "densenet169"}, {}, "backbone"),
        ({"image_size": 128}, {}, "image_size: null -> 128"),
        ({"tta": ((View(0.875),),)}, {}, "tta: "),
        ({"blend": (0.5,)}, {}, r"blend: \[0.3, 0.5\] -> \[0.5\]"),
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


@pytest.fixture
def of_a45208f(store):
    """The default study as commit a45208f left it: four trials, one of each end, one queued.

    That commit knew no `image_size`; `warmup_epochs` stands for a parameter that it did not know.
    """
    space = SearchSpace(n_unfrozen=(0, 4, 11, 20), epochs=(3, 9), batch_size=(32, 64))
    old = StudyConfig("mobilenetv2", "mobilenetv2", space, n_views=9, tta=((WHOLE,),), blend=())
    swept(store, 7, old)
    study, _ = open_study(store, old, FACTS)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.enqueue_trial(as_parameters(Recipe(n_unfrozen=11, lr_schedule="step"), space))
    known = signature(old, FACTS)
    for key in ["image_size", "tta", "blend", "probes"]:
        del known[key]
    del known["space.warmup_epochs"], known["baseline.warmup_epochs"]
    study.set_user_attr("signature", json.dumps(known))
    return old


def wider(config):
    space = replace(config.space, n_unfrozen=(0, 4, 11, 20, 29), warmup_epochs=(0, 8))
    return replace(config, space=space)


def test_a_wider_space_goes_on_under_its_name_with_the_old_trials(store, of_a45208f):
    before = studied(store, "mobilenetv2")
    study, widened = open_study(store, wider(of_a45208f), FACTS)
    assert sorted(widened) == ["n_unfrozen", "warmup_epochs"]
    assert optuna.get_all_study_names(store.optuna_url) == ["mobilenetv2"]
    after = study.get_trials()
    assert [(t.number, t.state, t.value, t.user_attrs) for t in after] == [
        (t.number, t.state, t.value, t.user_attrs) for t in before
    ]
    assert after[1].params == before[1].params | {"warmup_epochs": 0}
    assert study.best_trial.user_attrs["mlflow_run_id"] == "run 0"  # cv: the highest value
    queued, _ = swept(store, 2, wider(of_a45208f))
    assert queued == Recipe(n_unfrozen=11, lr_schedule="step")
    drawn_from = studied(store, "mobilenetv2")[-1].distributions
    assert drawn_from["n_unfrozen"].choices == (0, 4, 11, 20, 29)
    assert drawn_from["warmup_epochs"].choices == (0, 8)


def test_a_wider_space_is_not_widened_twice_nor_narrowed_again(store, of_a45208f):
    open_study(store, wider(of_a45208f), FACTS)
    assert open_study(store, wider(of_a45208f), FACTS)[1] == []
    with pytest.raises(UserError, match=r"space\.n_unfrozen"):
        open_study(store, of_a45208f, FACTS)


@pytest.mark.parametrize("instant", ["trials", "attributes", "deleted", "copied"])
def test_a_driver_killed_while_it_widens_loses_nothing(store, of_a45208f, monkeypatch, instant):
    class Killed(BaseException):
        pass

    def die(*args, **kwargs):
        raise Killed

    steps = {
        "trials": (optuna.Study, "add_trial"),
        "attributes": (optuna.Study, "set_user_attr"),
        "deleted": (study_module.optuna, "copy_study"),
        "copied": (study_module.optuna, "delete_study"),
    }
    numbers = [(t.number, t.value) for t in studied(store, "mobilenetv2")]
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(*steps[instant], die)
        open_study(store, wider(of_a45208f), FACTS)
    study, _ = open_study(store, wider(of_a45208f), FACTS)
    assert [(t.number, t.value) for t in study.get_trials()] == numbers
    assert optuna.get_all_study_names(store.optuna_url) == ["mobilenetv2"]


def test_a_parameter_that_had_another_value_before_is_no_widening(store, of_a45208f):
    space = replace(of_a45208f.space, warmup_epochs=(8,))
    baseline = replace(of_a45208f.baseline, warmup_epochs=8)
    with pytest.raises(UserError, match="warmup_epochs"):
        open_study(store, replace(of_a45208f, space=space, baseline=baseline), FACTS)


def test_a_study_knows_the_weights_that_it_began_with(store):
    assert stored_digest(store, "paper") is None
    open_study(store, CONFIG, FACTS)
    assert stored_digest(store, "paper") == "bb"


def test_the_same_settings_under_another_name_are_another_study(store):
    for name in ("paper", "another"):
        swept(store, 2, replace(CONFIG, name=name))
    assert len(studied(store)) == len(studied(store, "another")) == 2


def test_a_restart_goes_on_where_it_stopped_and_repeats_no_draw(store, copy_store, tmp_path):
    """Beyond the first random trials, too, where the sampler learns from the others."""
    at_once = swept(copy_store(store.folder, tmp_path / "other"), 12)
    in_two = swept(store, 4) + swept(store, 8)
    assert in_two == at_once
    assert len(set(at_once)) == 12


def test_another_seed_draws_other_recipes(store):
    first, second = swept(store, 3), swept(store, 3, replace(CONFIG, name="other", seed=1))
    assert first[0] == second[0] == Recipe()
    assert not set(first[1:]) & set(second[1:])


def test_what_is_drawn_can_be_read_and_the_baseline_is_exact(store):
    config = replace(CONFIG, baseline=Recipe(learning_rate=3.14159e-4))
    first, *drawn = swept(store, 6, config)
    assert first == config.baseline
    for recipe in drawn:
        for value in (recipe.learning_rate, recipe.dropout_rate):
            assert value == float(f"{value:.2g}")


def test_a_recipe_is_queued_once_though_it_is_asked_for_twice(store):
    study, _ = open_study(store, CONFIG, FACTS)
    trial = study.ask()
    suggest(trial, CONFIG, baseline=True)
    frozen = study.get_trials()[0]
    assert queue_again(study, frozen, killed=True)
    assert queue_again(study, frozen, killed=True)
    assert [t.state.name for t in study.get_trials()] == ["RUNNING", "WAITING"]


def test_the_signature_is_text_that_a_person_can_read(store):
    study, _ = open_study(store, CONFIG, FACTS)
    kept = json.loads(study.user_attrs["signature"])
    assert kept["space.n_unfrozen"] == "[0, 4, 11]"
    assert "name" not in kept
    assert {field.name for field in dataclasses.fields(SearchSpace)} <= {
        key.removeprefix("space.") for key in kept
    }


def test_a_signal_within_a_call_of_optunas_is_heard_once_the_call_is_whole(store, struck):
    """Seen in CI: Ctrl-C broke the connection within a query, which was told as a server away."""
    study, _ = open_study(store, CONFIG, FACTS)
    trial = study.ask()
    with pytest.raises(KeyboardInterrupt), struck("INSERT INTO trial_values"):
        study.tell(trial, 0.5)
    assert study.best_value == 0.5
