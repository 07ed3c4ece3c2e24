"""A study that cannot be run is refused when it is written down."""

import pytest

from nutclf.cli import WORKDIR, load_study
from nutclf.config import (
    OBJECTIVES,
    WHOLE,
    Augmentation,
    Objective,
    Recipe,
    SearchSpace,
    StudyConfig,
)
from nutclf.errors import UserError


def study(**settings) -> StudyConfig:
    return StudyConfig("any", "mobilenetv2", SearchSpace(n_unfrozen=(0,)), **settings)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr_schedule", "typo"),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("dropout_rate", 1.0),
        ("dropout_rate", -0.1),
        ("epochs", 0),
        ("batch_size", 0),
        ("n_unfrozen", -1),
        ("n_unfrozen", 1.5),
        ("warmup_epochs", -1),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_a_recipe_and_in_a_space(field, value):
    with pytest.raises(UserError, match=f"{field} is {value!r}; allowed: "):
        Recipe(**{field: value})
    ranged = field in ("learning_rate", "dropout_rate", "epochs")
    choices = {field: (value, value) if ranged else (value,)}
    with pytest.raises(UserError, match=f"{field} is {value!r}; allowed: "):
        SearchSpace(**({"n_unfrozen": (0,)} | choices))


@pytest.mark.parametrize(
    "choices",
    [
        {"n_unfrozen": ()},
        {"n_unfrozen": (4, 4)},
        {"batch_size": ()},
        {"epochs": (9, 3)},
        {"epochs": (3,)},
        {"dropout_rate": (0.1, 0.2, 0.3)},
    ],
)
def test_choices_differ_and_ranges_have_two_ends_in_order(choices):
    (name,) = choices
    with pytest.raises(UserError, match=name):
        SearchSpace(**({"n_unfrozen": (0,)} | choices))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: Objective("cv_accuracy", "up"), "direction is 'up'; allowed: maximize, minimize"),
        (lambda: Augmentation(rotation=1.5), "rotation is 1.5"),
        (lambda: study(tta=((WHOLE, WHOLE),)), "tta is '1, 1'; allowed: views that do not repeat"),
        (lambda: study(tta=((),)), "tta is ''"),
        (lambda: study(tta=()), r"tta is \(\); allowed: one or more sets"),
        (lambda: study(probes=()), r"blend is \(0.3, 0.5\); allowed: none without probes"),
        (lambda: study(probes=("typo",)), "probe is 'typo'; allowed: logistic regression, disc"),
        (lambda: study(blend=(1.0,)), "blend is 1.0; allowed: weights above 0 and below 1"),
        (lambda: Augmentation(resize=0.9), "resize is 0.9"),
        (lambda: Augmentation(zoom=1.0), "zoom is 1.0"),
        (lambda: StudyConfig("a", "b", SearchSpace((0,)), n_folds=1), "n_folds is 1"),
        (lambda: StudyConfig("a", "b", SearchSpace((0,)), n_views=0), "n_views is 0"),
        (lambda: StudyConfig("a", "b", SearchSpace((0,)), image_size=16), "image_size is 16"),
        (lambda: StudyConfig("a", "b", SearchSpace((0,)), feature_dtype="int8"), "feature_dtype"),
        (lambda: StudyConfig("a", "b", SearchSpace((0,)), precision="float16"), "precision is"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(made, says):
    with pytest.raises(UserError, match=says):
        made()


def test_equal_accuracies_are_told_apart_by_the_valid_loss():
    by_accuracy = Objective("best_valid_accuracy", "maximize")
    assert by_accuracy.beats(
        {"valid_accuracy": 0.8, "valid_loss": 0.5}, {"valid_accuracy": 0.8, "valid_loss": 0.6}
    )
    assert not by_accuracy.beats(
        {"valid_accuracy": 0.8, "valid_loss": 0.6}, {"valid_accuracy": 0.8, "valid_loss": 0.6}
    )


def test_cross_validation_keeps_the_last_epoch():
    worse = {"valid_accuracy": 0.1, "valid_loss": 9.0}
    assert OBJECTIVES["cv"].beats(worse, {"valid_accuracy": 0.9, "valid_loss": 0.1})


def test_an_experiment_file_holds_the_study_of_its_name():
    for path in (WORKDIR / "experiments").glob("*.py"):
        assert load_study(path.stem).name == path.stem.replace("_", "-")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("from nutclf.config import SearchSpace\nSearchSpace(gone=(0.1,))", "argument 'gone'"),
        ("STUDY = (", "was never closed"),
        ("import no_such_module", "No module named"),
        ("study = 1", "no attribute 'STUDY'"),
        ("STUDY = 1", "dataclass"),
    ],
)
def test_an_experiment_file_that_is_no_study_is_refused(tmp_path, monkeypatch, text, says):
    """A field that an older version had, say."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/mine.py").write_text(text)
    monkeypatch.setattr("nutclf.cli.WORKDIR", tmp_path)
    with pytest.raises(UserError, match=f"^experiments/mine.py is no study .*{says}.*; mend it"):
        load_study("mine")
