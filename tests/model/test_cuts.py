from functools import partial
from itertools import accumulate, pairwise

import keras
import numpy as np
import pytest

from experiments import densenet169 as densenet_study
from experiments import mobilenetv2 as mobilenet_study
from nutclf.model import cuts
from nutclf.model.backbones import find_spec

Dense = partial(keras.layers.Dense, 4)


def chain(x):
    """0 -> 1 -> 2"""
    return Dense()(Dense()(x))


def skip(x):
    """0 -> 1 -> 2 -> 3(+1) -> 4: the sum reads 1, so 2 is bypassed."""
    a = Dense()(x)
    return Dense()(keras.layers.Add()([a, Dense()(a)]))


def skip_from_the_input(x):
    """0 -> 1 -> 2(+0) -> 3"""
    return Dense()(keras.layers.Add()([x, Dense()(x)]))


def concat_of_three(x):
    """0 -> 1 -> 2, 3, 4 -> 5 (concat) -> 6"""
    a = Dense()(x)
    branches = [Dense()(a), Dense()(a), Dense()(a)]
    return Dense()(keras.layers.Concatenate()(branches))


def two_readers_of_a_branch(x):
    """0 -> 1 -> 2 -> 3(1 + 2) -> 4(concat of 3 and 1) -> 5: 1 is read until 4."""
    a = Dense()(x)
    b = Dense()(a)
    total = keras.layers.Add()([a, b])
    return Dense()(keras.layers.Concatenate()([total, a]))


def overlapping_skips(x):
    """0 -> 1 -> 2 -> 3(1 + 2) -> 4(2 + 3) -> 5: a reader of 2 spans the sum at 3."""
    a = Dense()(x)
    b = Dense()(a)
    c = keras.layers.Add()([a, b])
    return Dense()(keras.layers.Add()([b, c]))


def same_layer_twice_in_a_sum(x):
    """0 -> 1 -> 2 (1 + 1) -> 3"""
    a = Dense()(x)
    return Dense()(keras.layers.Add()([a, a]))


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (chain, [0, 1, 2]),
        (skip, [0, 1, 3, 4]),
        (skip_from_the_input, [0, 2, 3]),
        (concat_of_three, [0, 1, 5, 6]),
        (two_readers_of_a_branch, [0, 1, 4, 5]),
        (overlapping_skips, [0, 1, 4, 5]),
        (same_layer_twice_in_a_sum, [0, 1, 2, 3]),
    ],
)
def test_cut_points_are_those_worked_out_by_hand(graph, expected):
    x = keras.Input((4,))
    model = keras.Model(x, graph(x))
    assert cuts.cut_points(model) == expected
    assert expected[-1] == len(model.layers) - 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenetv2", ["out_relu", "block_13_expand_relu", "block_6_expand_relu"]),
        ("densenet169", ["relu", "pool4_conv", "pool3_conv"]),
        (
            "efficientnetv2b0",
            ["top_activation", "block6a_expand_activation", "block4a_expand_activation"],
        ),
    ],
)
def test_levels_are_the_last_maps_before_each_halving(name, expected):
    model = find_spec(name).build()
    assert [model.layers[cut].name for cut in cuts.levels(model)] == expected


def test_a_layer_used_elsewhere_too_is_judged_by_this_model_alone():
    x = keras.Input((4,))
    first, second = Dense(), Dense()
    model = keras.Model(x, second(first(x)))
    keras.Model(x, second(x))  # here `second` reads the input, around `first`
    assert cuts.cut_points(model) == [0, 1, 2]


def test_mobilenet_can_be_cut_behind_every_block_and_not_inside_a_bypassed_one(trunk):
    names = [trunk.layers[cut].name for cut in cuts.cut_points(trunk)]
    assert len(names) == 75
    assert {"block_2_add", "block_13_project_BN", "block_14_add", "Conv_1", "pool"} <= set(names)
    assert not [name for name in names if name.startswith("block_15_") and name[9:] != "add"]


def test_densenet_can_be_cut_behind_every_concatenation(densenet169):
    model = densenet169.model
    names = {model.layers[cut].name for cut in cuts.cut_points(model)}
    concats = {x.name for x in model.layers if isinstance(x, keras.layers.Concatenate)}
    assert len(concats) == 6 + 12 + 32 + 32
    assert concats <= names
    assert not [name for name in names if "_block" in name and "concat" not in name]


def test_the_pieces_between_all_cuts_in_a_row_are_the_whole_network(trunk, pixels):
    scaled = pixels.astype(np.float32) / 127.5 - 1
    whole = np.asarray(trunk(scaled, training=False))
    assert whole.std(axis=0).mean() > 0.01  # images differ, so equality below says something
    x, points = scaled, cuts.cut_points(trunk)
    for start, stop in pairwise(points):
        x = cuts.between(trunk, start, stop)(x, training=False)
    np.testing.assert_allclose(np.asarray(x), whole, atol=1e-5)


def assert_halves_join(trunk, scaled, points):
    whole = np.asarray(trunk(scaled, training=False))
    last = len(trunk.layers) - 1
    for cut in points:
        features = cuts.between(trunk, 0, cut)(scaled, training=False)
        joined = cuts.between(trunk, cut, last)(features, training=False)
        np.testing.assert_allclose(
            np.asarray(joined), whole, atol=1e-5, err_msg=trunk.layers[cut].name
        )


def test_mobilenet_split_in_two_and_joined_again_is_the_whole_network(trunk, pixels):
    assert_halves_join(trunk, pixels[:2] / np.float32(127.5) - 1, cuts.cut_points(trunk)[1:-1:12])


@pytest.mark.slow
def test_mobilenet_split_at_every_cut_and_joined_again_is_the_whole_network(trunk, pixels):
    assert_halves_join(trunk, pixels[:2] / np.float32(127.5) - 1, cuts.cut_points(trunk)[1:-1])


@pytest.mark.slow
def test_densenet_split_and_joined_again_is_the_whole_network(densenet169):
    trunk = cuts.trunk(densenet169.model)
    scaled = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
    whole = np.asarray(trunk(scaled, training=False))
    assert whole.std() > 0.01
    depths = densenet_study.DEPTHS
    assert_halves_join(trunk, scaled, sorted({cuts.cut_for_depth(trunk, n) for n in depths})[:-1])
    assert_halves_join(trunk, scaled, cuts.cut_points(trunk)[5:-1:40])


@pytest.mark.parametrize(
    ("n_unfrozen", "expected"),
    [
        (0, "pool"),
        (1, "pool"),  # out_relu carries no weights
        (2, "Conv_1"),
        (3, "block_16_project_BN"),
        (4, "block_16_project"),
        (20, "block_14_add"),  # what enters block 15
    ],
)
def test_the_tail_of_a_depth_begins_as_late_as_it_can(trunk, n_unfrozen, expected):
    assert trunk.layers[cuts.cut_for_depth(trunk, n_unfrozen)].name == expected


def test_everything_that_trains_lies_behind_the_cut(trunk, lively):
    layers = lively.model.layers
    for depth in cuts.distinct_depths(lively.model):
        cut = cuts.cut_for_depth(trunk, depth)
        before = {x.name for x in trunk.layers[: cut + 1] if x.weights}
        assert not before & {x.name for x in layers[len(layers) - depth :]}


@pytest.mark.parametrize("name", ["mobilenetv2", "densenet169"])
def test_each_distinct_depth_trains_more_than_the_one_before(name, request):
    backbone = request.getfixturevalue(name).model
    by_layer = [
        sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)
        for layer in reversed(backbone.layers)
    ]
    trained = [0, *accumulate(by_layer)]  # at every depth from 0 to all layers
    depths = cuts.distinct_depths(backbone)
    assert depths[0] == 0
    assert all(trained[a] < trained[b] for a, b in pairwise(depths))
    assert {trained[depth] for depth in depths} == set(trained)  # and no depth is left out


@pytest.mark.parametrize("study", [mobilenet_study, densenet_study], ids=lambda x: x.STUDY.name)
def test_every_depth_that_an_experiment_offers_is_distinct(study, request):
    backbone = request.getfixturevalue(study.STUDY.backbone).model
    assert set(study.STUDY.space.n_unfrozen) <= set(cuts.distinct_depths(backbone))
