import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from nutclf.config import Ensemble, View
from nutclf.model import cuts
from nutclf.model.network import (
    Deployable,
    build_tail,
    n_trainable,
    of_one_view,
    predict,
    without_probe,
)
from nutclf.model.tta import look

ROUNDING = 1e-5  # of probabilities
CLASSES = 10

# Runs without `nutclf`: argv is the model's file, the pixels' file and where to write.
STRANGER = """
import importlib.util, sys
assert importlib.util.find_spec("nutclf") is None
import keras, numpy as np
model_file, pixels_file, out_file = sys.argv[1:]
model = keras.models.load_model(model_file, safe_mode=True)
np.save(out_file, model(np.load(pixels_file)))
"""


def tail_of(trunk, n_unfrozen, seed=0, cut=None) -> keras.Model:
    cut = cuts.cut_for_depth(trunk, n_unfrozen) if cut is None else cut
    return build_tail(trunk, cut, n_unfrozen, CLASSES, 0.5, seed)


def changed(tail: keras.Model) -> keras.Model:
    """As if trained: every weight that may train is moved, at random."""
    rng = np.random.default_rng(1)
    for weight in tail.trainable_weights:
        weight.assign(np.array(weight) * rng.uniform(0.7, 1.3, weight.shape))
    return tail


def fill(deployable, tail, *more):
    weights = {layer.name: layer.get_weights() for layer in tail.layers if layer.weights}
    return deployable.fill(weights, tail.get_layer("dropout").rate, *more)


@pytest.fixture(scope="module")
def deployable(lively) -> Deployable:
    return Deployable(lively, CLASSES)


@pytest.fixture
def whole(deployable, trunk) -> keras.Model:
    return fill(deployable, changed(tail_of(trunk, 4)))


# 1280 * 256 + 256 and 256 * 10 + 10 make the head; 320 * 1280 are Conv_1, and the BatchNorms before
# and behind it train 2 * 320 and 2 * 1280 more.
@pytest.mark.parametrize(("n_unfrozen", "trainable"), [(4, 743_306), (0, 330_506)])
def test_the_published_network_trains_the_published_number_of_parameters(
    mobilenetv2, n_unfrozen, trainable
):
    trunk = cuts.trunk(mobilenetv2.model)
    for cut in (n_unfrozen, 20):  # frozen layers behind the cut do not count
        tail = tail_of(trunk, n_unfrozen, cut=cuts.cut_for_depth(trunk, cut))
        assert n_trainable(tail) == trainable


def test_zero_unfrozen_trains_only_the_head(trunk):
    tail = tail_of(trunk, 0, cut=cuts.cut_for_depth(trunk, 20))  # frozen layers are in it
    assert tail.get_layer("Conv_1").weights
    assert {weight.path.split("/")[0] for weight in tail.trainable_weights} == {
        "hidden",
        "probabilities",
    }


def test_a_depth_of_four_trains_these_layers_and_no_others(trunk):
    tail = tail_of(trunk, 4, cut=cuts.cut_for_depth(trunk, 20))
    assert {weight.path.split("/")[0] for weight in tail.trainable_weights} == {
        "block_16_project_BN",
        "Conv_1",
        "Conv_1_bn",
        "hidden",
        "probabilities",
    }


def test_a_tail_has_weights_of_its_own(trunk):
    tail = tail_of(trunk, 4)
    before = np.array(trunk.get_layer("Conv_1").kernel)
    np.testing.assert_array_equal(np.array(tail.get_layer("Conv_1").kernel), before)
    changed(tail)
    np.testing.assert_array_equal(np.array(trunk.get_layer("Conv_1").kernel), before)
    assert not np.array_equal(np.array(tail.get_layer("Conv_1").kernel), before)


def test_equal_seeds_begin_with_equal_heads_and_other_seeds_do_not(trunk):
    one, same, other = (tail_of(trunk, 0, seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])
    assert not np.array_equal(one[2], other[2])


@pytest.mark.parametrize("n_unfrozen", [0, 4, 20])
def test_the_filled_whole_answers_like_its_tail(prefix_of, trunk, pixels, deployable, n_unfrozen):
    cut = cuts.cut_for_depth(trunk, n_unfrozen)
    tail = changed(tail_of(trunk, n_unfrozen))
    expected = predict(tail, prefix_of(cut)(pixels))
    assert expected.std(axis=0).max() > 0.01  # the images are told apart
    found = predict(fill(deployable, tail), pixels)
    np.testing.assert_allclose(found, expected, atol=ROUNDING)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


CROP, MIRRORED, FAR = View(0.875), View(0.78, mirrored=True), View(1.5)
READ = {"out_relu": 1280, "block_13_expand_relu": 2 * 576, "block_6_expand_relu": 2 * 192}
LINEAR = (
    np.random.default_rng(3).normal(0, 0.05, (sum(READ.values()), CLASSES)).astype(np.float32),
    np.random.default_rng(4).normal(0, 1, CLASSES).astype(np.float32),
)


@pytest.fixture(scope="module")
def linear_answer(trunk):
    """What the probe LINEAR says of pixels, by hand."""
    maps_of = keras.Model(trunk.input, [trunk.get_layer(name).output for name in READ])

    def answer(pixels):
        last, *earlier = (np.asarray(maps) for maps in maps_of(pixels / np.float32(127.5) - 1))
        read = [last.mean(axis=(1, 2))]
        for maps in earlier:
            read += [maps.mean(axis=(1, 2)), maps.std(axis=(1, 2))]
        logits = np.concatenate(read, axis=1) @ LINEAR[0] + LINEAR[1]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    return answer


@pytest.mark.parametrize("n_unfrozen", [0, 4, 20, 56, 154])
@pytest.mark.parametrize("views", [(CROP,), (View(), CROP, MIRRORED, FAR)])
@pytest.mark.parametrize("weight", [0, 0.3])
def test_views_and_blend_inside_the_graph_are_their_mean_outside(
    prefix_of, trunk, pixels, deployable, linear_answer, n_unfrozen, views, weight
):
    cut = cuts.cut_for_depth(trunk, n_unfrozen)
    tail, seen = changed(tail_of(trunk, n_unfrozen)), pixels.astype(np.float32)
    looks = [np.asarray(look(seen, view)) for view in views]
    expected = np.mean([predict(tail, prefix_of(cut)(each)) for each in looks], axis=0)
    ensemble, linear = Ensemble(views), ()
    if weight:
        of_probe = np.mean([linear_answer(each) for each in looks], axis=0)
        expected = (1 - weight) * expected + weight * of_probe
        ensemble, linear = Ensemble(views, "logistic regression", weight), LINEAR
    whole = fill(deployable, tail, ensemble, linear, cut)
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(predict(whole, pixels), expected, atol=ROUNDING)
    plain = predict(tail, prefix_of(cut)(pixels))
    np.testing.assert_allclose(predict(without_probe(whole), seen), plain, atol=ROUNDING)


def test_a_probe_alone_is_the_backbone_its_statistics_and_one_dense_layer(
    pixels, deployable, linear_answer, tmp_path
):
    whole = deployable.fill({}, ensemble=Ensemble((CROP,)), linear=LINEAR)
    expected = linear_answer(np.asarray(look(pixels.astype(np.float32), CROP)))
    np.testing.assert_allclose(predict(whole, pixels), expected, atol=ROUNDING)
    whole.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", safe_mode=True)
    np.testing.assert_allclose(predict(again, pixels), expected, atol=ROUNDING)
    plain = predict(without_probe(again), pixels.astype(np.float32))
    np.testing.assert_allclose(plain, linear_answer(pixels), atol=ROUNDING)


def test_filling_with_a_shallower_tail_restores_the_deeper_layers(trunk, pixels, deployable):
    shallow, deep = tail_of(trunk, 0), changed(tail_of(trunk, 20))
    first = predict(fill(deployable, shallow), pixels)
    between = predict(fill(deployable, deep), pixels)
    assert np.abs(between - first).max() > 0.01
    np.testing.assert_array_equal(predict(fill(deployable, shallow), pixels), first)


def test_filling_leaves_the_tail_and_the_backbone_as_they_are(lively, trunk, deployable):
    tail = changed(tail_of(trunk, 4))
    kept = [model.get_weights() for model in (tail, lively.model)]
    fill(deployable, tail)
    for model, weights in zip((tail, lively.model), kept, strict=True):
        for now, before in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, before)


def test_the_whole_keeps_the_dropout_rate_of_the_recipe(trunk, deployable):
    tail = build_tail(trunk, len(trunk.layers) - 1, 0, CLASSES, 0.3, 0)
    assert of_one_view(fill(deployable, tail)).get_layer("dropout").rate == 0.3


def test_the_saved_whole_opens_without_nutclf_in_a_new_process(whole, pixels, tmp_path):
    model_file, pixels_file, out = (tmp_path / n for n in ("m.keras", "pixels.npy", "out.npy"))
    whole.save(model_file)
    np.save(pixels_file, pixels)
    # -I: neither the working directory nor PYTHONPATH is searched.
    command = [sys.executable, "-I", "-c", STRANGER, model_file, pixels_file, out]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(np.load(out), predict(whole, pixels), atol=ROUNDING)


def test_the_saved_whole_holds_stock_layers_only(whole, tmp_path):
    whole.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        config = json.loads(archive.read("config.json"))
    named = list(class_names(config))
    assert ("keras.layers", "BatchNormalization") in named  # the walk reaches the inner network
    assert all(module.split(".")[0] == "keras" for module, _ in named)
    assert not [name for _, name in named if name == "Lambda" or name.startswith("Random")]
    assert "nutclf." not in json.dumps(config)


def class_names(config):
    """(module, class name) of everything serialized in a Keras config."""
    if isinstance(config, dict):
        if "class_name" in config and config.get("module"):
            yield config["module"], config["class_name"]
        assert not config.get("registered_name") or config["registered_name"] in (
            "Functional",
            config["class_name"],
        )
    children = config.values() if isinstance(config, dict) else config
    for child in children:
        if isinstance(child, (dict, list)):
            yield from class_names(child)


def test_asking_twice_moves_no_statistics_and_gives_the_same_answer(whole, pixels):
    before = whole.get_weights()
    first = np.asarray(whole(pixels))  # without `training=`, as anyone calls a model
    np.testing.assert_array_equal(np.asarray(whole(pixels)), first)
    for now, then in zip(whole.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_bytes_and_floats_of_the_same_pixels_agree(whole, pixels):
    as_floats = predict(whole, pixels.astype(np.float32))
    np.testing.assert_allclose(predict(whole, pixels), as_floats, atol=ROUNDING)
    assert np.abs(predict(whole, pixels / 255.0) - as_floats).max() > 0.01  # 0..1 is another image


def test_an_oblong_image_answers_like_its_centred_square(whole, pixels):
    tall = np.random.default_rng(2).integers(0, 256, (1, 100, 50, 3), np.uint8)
    answer = predict(whole, tall)
    assert answer.shape == (1, CLASSES)
    np.testing.assert_allclose(answer, predict(whole, tall[:, 25:75]), atol=ROUNDING)
    assert np.abs(answer - predict(whole, tall[:, :50])).max() > 1e-3


def test_the_backbone_inside_is_handed_scaled_pixels_that_nobody_resampled(whole, pixels):
    network = of_one_view(whole)
    entry = keras.Model(network.input, network.get_layer("scaling").output)
    np.testing.assert_allclose(np.asarray(entry(pixels)), pixels / 127.5 - 1, atol=1e-6)
    squares = keras.Model(whole.input, whole.layers[-2].output)
    grey = np.full((1, 40, 30, 3), 128, np.uint8)
    np.testing.assert_allclose(np.asarray(squares(grey)), 128, atol=1e-4)


def test_the_callers_pixels_are_not_written_to(whole, pixels):
    mine = pixels.astype(np.float32)
    before = mine.copy()
    predict(whole, mine)
    np.testing.assert_array_equal(mine, before)


def test_predicting_in_batches_keeps_the_order(whole, pixels):
    together = predict(whole, pixels)
    for size in (1, 3):
        np.testing.assert_allclose(predict(whole, pixels, size), together, atol=ROUNDING)
