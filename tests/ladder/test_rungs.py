import itertools

import numpy as np
import pytest

from nutclf.config import Augmentation, Recipe
from nutclf.evaluate.intervals import Rate
from nutclf.ladder.rungs import (
    NO_AUGMENTATION,
    RUNGS,
    Row,
    as_markdown,
    check_parameters,
    ladder_config,
    notes_on,
)
from nutclf.train.views import Augmenter


def test_each_rung_changes_one_thing_and_the_last_is_the_published_recipe():
    changes = []
    for before, rung in itertools.pairwise(RUNGS):
        one, two = vars(before.recipe), vars(rung.recipe)
        changed = [key for key in one if one[key] != two[key]]
        changes.append(changed + ["augmented"] * (before.augmented != rung.augmented))
    assert changes == [["augmented"], ["n_unfrozen"], ["epochs"], ["lr_schedule"]]
    assert [rung.number for rung in RUNGS] == [2, 3, 4, 5, 6]
    assert RUNGS[-1].recipe == Recipe(learning_rate=1e-3)


def test_augmented_fits_see_a_new_view_each_epoch_and_plain_ones_the_image():
    plain, augmented = (ladder_config("mobilenetv2", "drawn", which) for which in (False, True))
    assert (plain.views, augmented.views) == (1, 9)
    assert augmented.augmentation == Augmentation()
    assert augmented.image_size == 128
    assert ladder_config("mobilenetv2", "photographs", True).image_size is None


def test_no_augmentation_changes_no_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    keys = ["a", "b", "c"]
    plain = Augmenter(NO_AUGMENTATION, 32, 0).view(pixels, keys, 0)
    assert np.array_equal(plain, pixels)
    assert not np.array_equal(Augmenter(Augmentation(), 32, 0).view(pixels, keys, 0), pixels)


@pytest.mark.parametrize(
    ("n_classes", "n_unfrozen", "counted"),
    [(10, 0, 330_506), (10, 4, 743_306), (3, 0, 330_506 - 7 * 257), (3, 4, 743_306 - 7 * 257)],
)
def test_parameters_are_those_published_for_any_number_of_classes(n_classes, n_unfrozen, counted):
    check_parameters("mobilenetv2", n_classes, n_unfrozen, counted)
    with pytest.raises(RuntimeError, match=f"{counted + 1:,} parameters .* has {counted:,}"):
        check_parameters("mobilenetv2", n_classes, n_unfrozen, counted + 1)
    check_parameters("densenet169", n_classes, n_unfrozen, 1)


def test_the_published_network_has_the_published_parameters():
    """The real network, with random weights: what the ladder checks is what it trains."""
    from nutclf.model import cuts, network
    from nutclf.model.backbones import load_backbone

    trunk = cuts.trunk(load_backbone("mobilenetv2", "random").model)
    for n_unfrozen in (0, 4):
        cut = cuts.cut_for_depth(trunk, n_unfrozen)
        tail = network.build_tail(trunk, cut, n_unfrozen, 10, 0.5, 0)
        counted = network.parameter_counts(tail)["trainable"]
        check_parameters("mobilenetv2", 10, n_unfrozen, counted)


ROWS = [
    Row(2, "frozen", "valid accuracy, epochs 1-3", "0.76, 0.88", "0.800, 0.940", Rate(47, 50)),
    Row(2, "frozen", "trainable parameters", "330,506", "330,506"),
    Row(3, "a|b", "valid loss", "", "0.280"),
]


def test_the_table_names_a_rung_once_and_shows_intervals_with_their_counts():
    header, rule, *lines = as_markdown(ROWS).splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    assert cells[0] == [
        "2", "frozen", "valid accuracy, epochs 1-3", "0.76, 0.88", "0.800, 0.940",
        "0.838-0.979 (47/50)",
    ]  # fmt: skip
    assert lines[1].startswith("|      |")
    assert lines[2].startswith(r"| 3    | a\|b ")
    assert "| –" in lines[2], "not published"
    assert set(rule) == {"|", "-"}
    assert len({len(line) for line in (header, rule, *lines)}) == 1, "columns line up"


def test_a_row_as_json_has_the_interval_only_where_there_is_one():
    first, second, _ = (row.record() for row in ROWS)
    assert (first["right"], first["n"]) == (47, 50)
    assert (first["low"], first["high"]) == pytest.approx((0.838, 0.979), abs=5e-4)
    assert second == {
        "rung": 2, "title": "frozen", "figure": "trainable parameters", "published": "330,506",
        "here": "330,506",
    }  # fmt: skip


def test_what_makes_the_published_column_no_yardstick_is_said():
    assert "Published figures" not in notes_on("mobilenetv2", "photographs")
    assert "the network here is densenet169." in notes_on("densenet169", "photographs")
    assert "; the images here are drawn, 128 pixels wide." in notes_on("mobilenetv2", "drawn")
