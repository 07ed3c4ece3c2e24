import os
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from nutclf.config import OBJECTIVES, PLAIN, WHOLE, Ensemble, Recipe, SearchSpace, StudyConfig
from nutclf.data.folder import Split
from nutclf.data.reader import read_image
from nutclf.errors import UserError
from nutclf.model.backbones import load_backbone
from nutclf.process import has_gpu
from nutclf.train.feature_store import FeatureStore
from nutclf.train.workbench import FitResult, Workbench

# Read here: no test sees the settings of the person who runs it.
DATA, WEIGHTS = os.environ.get("NUTCLF_DATA"), os.environ.get("NUTCLF_WEIGHTS")
CLASSES = ("almonds", "cashews", "pecans", "walnuts")
RECIPE = Recipe(n_unfrozen=4, epochs=1, batch_size=8, lr_schedule="constant", warmup_epochs=1)
STUDY = StudyConfig(
    "test",
    "tiny",
    SearchSpace(n_unfrozen=(0, 4)),
    OBJECTIVES["valid"],
    baseline=RECIPE,
    n_views=3,
    feature_dtype="float32",
)


@pytest.fixture
def features_folder(tmp_path):
    return tmp_path / "features"


@pytest.fixture
def tiny_bench(tiny_backbone, draw_images, features_folder):
    """A bench of the tiny network: `tiny_bench(store, backbone, say)`."""
    side = tiny_backbone.spec.image_size
    splits = {"train": draw_images(20, side, 0), "valid": draw_images(8, side, 1)}
    plenty = FeatureStore(features_folder, 1 << 30)

    def bench(store=plenty, backbone=tiny_backbone, say=lambda line: None) -> Workbench:
        return Workbench(STUDY, backbone, CLASSES, splits, store, say)

    return bench


@pytest.fixture(scope="module")
def mobilenet_bench(lively, images, few_images, tmp_path_factory) -> Workbench:
    splits = {"train": images, "valid": few_images}
    store = FeatureStore(tmp_path_factory.mktemp("features"), 1 << 30)
    return Workbench(STUDY, lively, CLASSES, splits, store)


@pytest.fixture(scope="module")
def fitted(mobilenet_bench) -> FitResult:
    return mobilenet_bench.fit(replace(RECIPE, learning_rate=3e-3))


def test_the_assembled_network_answers_like_the_fit(mobilenet_bench, fitted, few_images):
    assert fitted.valid[0].std(axis=0).max() > 0.01  # images are told apart
    whole, y_prob = mobilenet_bench.assemble(fitted)
    np.testing.assert_allclose(y_prob, fitted.valid[0], atol=1e-4)
    np.testing.assert_allclose(np.asarray(whole(few_images.pixels)), fitted.valid[0], atol=1e-4)


@pytest.mark.parametrize("way", ["at the cut", "nothing unfrozen", "blended", "a probe alone"])
def test_what_it_knows_of_training_images_are_the_features_that_the_network_gives(
    mobilenet_bench, fitted, images, way
):
    probe, *_ = mobilenet_bench.fit_probes(None)
    answering, ensemble, others = fitted, PLAIN, None
    if way == "blended":
        ensemble, others = Ensemble((WHOLE,), probe.name, 0.5), probe
    elif way == "nothing unfrozen":
        answering = mobilenet_bench.fit(replace(RECIPE, n_unfrozen=0))
    elif way == "a probe alone":
        answering = probe
    whole, _ = mobilenet_bench.assemble(answering, ensemble, others)
    known = mobilenet_bench.familiarity(answering, ensemble, np.full(len(images.labels), -1))
    assert known.bank.shape == (20, 320 if way == "at the cut" else 1280)
    model = keras.Model(whole.input, whole.get_layer("network")(whole.get_layer("views").output))
    _, given = model(images.pixels)
    _, nearest = known.compare(np.asarray(given))
    assert [row[0] for row in nearest] == images.paths
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    np.testing.assert_allclose(given / lengths, known.bank, atol=2e-3)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_a_tail_trained_in_mixed_precision_is_assembled_and_answers_in_float32(
    mobilenet_bench, fitted, precision
):
    backbone, splits = mobilenet_bench.backbone, mobilenet_bench.splits
    bench = Workbench(replace(STUDY, precision=precision), backbone, CLASSES, splits, None)
    mixed = bench.fit(fitted.recipe)
    assert (fitted.facts["precision"], mixed.facts["precision"]) == ("float32", precision)
    assert all(weight.dtype == np.float32 for layer in mixed.weights.values() for weight in layer)
    assert not np.array_equal(mixed.valid, fitted.valid)
    whole, y_prob = bench.assemble(mixed)
    np.testing.assert_allclose(y_prob, mixed.valid[0], atol=1e-4)
    assert {layer.dtype_policy.name for layer in whole.get_layer("network").layers} == {"float32"}


@pytest.mark.skipif(not has_gpu(), reason="there is no GPU")
def test_on_a_gpu_a_tail_trains_in_mixed_precision_and_says_so(mobilenet_bench, fitted):
    assert fitted.facts["precision"] == "mixed_float16"
    _, y_prob = mobilenet_bench.assemble(fitted)
    np.testing.assert_allclose(y_prob, fitted.valid[0], atol=1e-3)


def test_the_network_is_assembled_anew_for_each_fit(mobilenet_bench, fitted):
    other = mobilenet_bench.fit(replace(RECIPE, n_unfrozen=0), seed=5)
    _, of_other = mobilenet_bench.assemble(other)
    _, of_fitted = mobilenet_bench.assemble(fitted)
    assert np.abs(of_other - of_fitted).max() > 0.01
    np.testing.assert_allclose(of_other, other.valid[0], atol=1e-4)


def test_a_tail_of_which_a_layer_is_not_taken_over_is_refused(tiny_bench):
    bench = tiny_bench()
    result = bench.fit(RECIPE)
    bench.assemble(bench.fit(RECIPE, seed=3))
    weights = {name: value for name, value in result.weights.items() if name != "hidden"}
    with pytest.raises(RuntimeError, match="differs from the trained tail by"):
        bench.assemble(replace(result, weights=weights))


def test_stored_features_of_other_weights_are_noticed_in_assembling(tiny_bench, tiny_backbone):
    bench = tiny_bench()
    bench.assemble(bench.fit(RECIPE))
    other = keras.models.clone_model(tiny_backbone.model)  # goes by the same digest
    other.set_weights([weight + 0.1 for weight in tiny_backbone.model.get_weights()])
    bench = tiny_bench(backbone=replace(tiny_backbone, model=other))
    with pytest.raises(RuntimeError, match="differs from the trained tail by"):
        bench.assemble(bench.fit(RECIPE))


def test_a_cached_fit_is_the_uncached_one(tiny_bench, features_folder):
    recipe = replace(RECIPE, learning_rate=0.03)
    cached, uncached = (bench.fit(recipe) for bench in (tiny_bench(), tiny_bench(None)))
    for name in ("train_loss", "valid_loss"):
        assert cached.history.best[name] == pytest.approx(uncached.history.best[name], abs=1e-4)
    np.testing.assert_allclose(cached.valid, uncached.valid, atol=1e-4)
    # And only views that the fit saw were made: of three that may be drawn that of the warm-up and
    # that of the epoch; and the untouched valid split.
    assert len(list(features_folder.glob("*.json"))) == 2 + 1


def test_a_fit_judges_the_images_that_it_held_out(tiny_bench):
    bench = tiny_bench()
    rows = np.setdiff1d(np.arange(20), [3, 7, 19])
    result = bench.fit(RECIPE, rows=rows)
    everyone = bench.predict(result, "train")
    assert everyone.shape == (1, 20, 4)
    np.testing.assert_allclose(result.held_out, everyone[:, [3, 7, 19]], atol=1e-6)
    assert bench.fit(RECIPE).held_out is None


def test_a_fit_starts_from_the_seed_of_the_study_unless_given_another(tiny_bench):
    default, study, other = (
        tiny_bench().fit(RECIPE, seed).valid for seed in (None, STUDY.seed, STUDY.seed + 1)
    )
    np.testing.assert_array_equal(default, study)
    assert not np.array_equal(default, other)


def test_a_fit_is_the_same_whatever_was_fitted_before(tiny_bench):
    bench = tiny_bench()
    first = bench.fit(RECIPE)
    bench.fit(RECIPE, rows=np.arange(10))
    bench.fit(replace(RECIPE, n_unfrozen=0))
    np.testing.assert_array_equal(first.valid, bench.fit(RECIPE).valid)


def test_a_store_too_small_is_said_and_features_come_from_pixels(tiny_bench, tmp_path):
    said, folder = [], tmp_path / "small"
    features = tiny_bench(FeatureStore(folder, 1000), say=said.append).features("train", 2)
    features.prepare(0)
    assert features.batch(0, np.arange(3)).shape[0] == 3
    assert "more than the store may hold: training from pixels instead" in said[0]
    assert not list(folder.iterdir())


def test_vectors_are_kept_where_maps_are_too_large(tiny_bench, tmp_path, features_folder):
    def pooled(store):
        bench = tiny_bench(store, say=said.append)
        return bench.features("train", bench.pool).all(0)

    said, folder, whole = [], tmp_path / "small", FeatureStore(features_folder, 10**8)
    small = pooled(FeatureStore(folder, 100_000))
    assert len(list(folder.glob("*.npy"))) == 1
    assert not said
    np.testing.assert_allclose(small, pooled(whole), atol=1e-5)
    sizes = [next(each.glob("*.npy")).stat().st_size for each in (folder, features_folder)]
    assert sizes[0] < 100_000 / 7 < sizes[1]


# 1 is a ReLU and so is 6, with no weights; 154 is the input; 155 layers there are not.
@pytest.mark.parametrize("depth", [1, 6, 154, 155])
def test_a_depth_that_trains_no_more_than_another_is_refused(lively, images, depth):
    config = replace(STUDY, space=SearchSpace(n_unfrozen=(0, depth)))
    with pytest.raises(UserError, match=rf"n_unfrozen \[{depth}\] of mobilenetv2"):
        Workbench(config, lively, CLASSES, {"train": images, "valid": images}, None)


def test_the_depth_of_the_baseline_is_checked_too(lively, images):
    config = replace(STUDY, baseline=replace(RECIPE, n_unfrozen=6))
    with pytest.raises(UserError, match=r"n_unfrozen \[6\]"):
        Workbench(config, lively, CLASSES, {"train": images, "valid": images}, None)


@pytest.mark.photographs
@pytest.mark.skipif(
    not (DATA and WEIGHTS), reason="NUTCLF_DATA and NUTCLF_WEIGHTS are not both set"
)
def test_photographs_through_the_published_network_assemble_like_their_tail(monkeypatch, tmp_path):
    monkeypatch.setenv("NUTCLF_WEIGHTS", WEIGHTS)
    files = sorted(Path(DATA, "valid").glob("*/*"))[::7]
    pixels = np.stack([read_image(file, 224) for file in files])
    names = list(map(str, files))
    split = Split(pixels, np.arange(len(files)) % 4, names, names)
    bench = Workbench(
        STUDY,
        load_backbone("mobilenetv2"),
        CLASSES,
        {"train": split, "valid": split},
        FeatureStore(tmp_path, 1 << 30),
    )
    _, y_prob = bench.assemble(bench.fit(RECIPE))  # raises where it differs from the tail
    assert y_prob.std(axis=0).max() > 0.01
