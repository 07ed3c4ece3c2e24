from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import nutclf.model
from nutclf.data.drawn import CLASSES, draw
from nutclf.data.shapes import N_LABELS, draw_shape
from nutclf.model.backbones import BackboneSpec, find_spec
from nutclf.model.cuts import trunk
from nutclf.model.half_precision import save_half_precision
from nutclf.train import pretrain
from nutclf.train.pretrain import Pretraining

TINY = Pretraining(n_train=34, n_valid=8, epochs=2, batch_size=16)
# Keras hands NumPy an `__array__` without `copy` whenever it saves weights.
keras_saves = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def small_network(*_):
    """Four layers instead of 154, whose graph takes ten seconds to trace."""
    pixels = keras.Input((96, 96, 3))
    hidden = keras.layers.Conv2D(8, 5, strides=4)(pixels)
    hidden = keras.layers.BatchNormalization()(hidden)
    return keras.Model(pixels, keras.layers.ReLU()(hidden))


@pytest.fixture(scope="module")
def trained():
    return pretrain.pretrain(small_network, TINY)


@pytest.fixture(scope="module")
def shipped():
    """The path of the weights in the package, and the network that holds them."""
    spec = find_spec(pretrain.BACKBONE)
    path = Path(nutclf.model.__file__).parent / spec.weights_file
    backbone = spec.build()
    backbone.load_weights(path)
    return path, backbone


def test_equal_settings_give_equal_weights(trained):
    again, accuracies = pretrain.pretrain(small_network, TINY)
    assert accuracies == trained[1]
    for one, other in zip(trained[0].get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_accuracy_a_task(trained):
    assert set(trained[1]) == {"outline", "texture", "hue"}
    assert all(0 <= accuracy <= 1 for accuracy in trained[1].values())


def test_batch_norm_statistics_follow_a_short_training(trained):
    """After 4 steps, momentum 0.98 leaves 0.98^4 = 92 % of the initial variance 1, not 99.6 %."""
    moving_variance = trained[0].layers[2].get_weights()[3]
    assert (np.abs(moving_variance - 1) > 0.005).all()


@keras_saves
def test_the_command_writes_weights_that_load(tmp_path, monkeypatch, trained):
    monkeypatch.setattr(BackboneSpec, "build", small_network)
    monkeypatch.setattr(pretrain, "Pretraining", lambda: replace(TINY, epochs=1, seed=5))
    # It cannot be switched off again, and it would make unseeded tests fail.
    asked = []
    monkeypatch.setattr(
        tf.config.experimental, "enable_op_determinism", lambda: asked.append("determinism")
    )
    out = tmp_path / "some.weights.h5"
    pretrain.main(["--out", str(out)])
    assert asked == ["determinism"]
    loaded = small_network()
    initial = loaded.get_weights()[0]
    loaded.load_weights(out)
    # Trained, and from another seed than the other network here.
    assert not np.allclose(loaded.get_weights()[0], initial, atol=1e-3)
    assert not np.allclose(loaded.get_weights()[0], trained[0].get_weights()[0], atol=1e-3)


@keras_saves
def test_half_precision_keeps_three_digits(tmp_path, trained):
    save_half_precision(trained[0], tmp_path / "half.weights.h5")
    fresh = small_network()
    fresh.load_weights(tmp_path / "half.weights.h5")
    for kept, full in zip(fresh.get_weights(), trained[0].get_weights(), strict=True):
        assert kept.dtype == np.float32
        np.testing.assert_allclose(kept, full, rtol=5e-4, atol=1e-7)


def test_shapes_are_a_pure_function_and_the_seeds_share_none():
    picture, labels = draw_shape(4, 0)
    np.testing.assert_array_equal(draw_shape(4, 0)[0], picture)
    assert picture.shape == (96, 96, 3)
    assert picture.dtype == np.uint8
    assert not np.array_equal(draw_shape(4, 1)[0], picture)
    assert not np.array_equal(draw_shape(5, 0)[0], picture)
    assert (labels < N_LABELS).all()


def test_every_outline_texture_and_hue_is_drawn_without_a_warning():
    labels = np.stack([draw_shape(index, 3)[1] for index in range(150)])
    assert [len(set(column)) for column in labels.T.tolist()] == list(N_LABELS)


def test_the_shipped_weights_are_small_and_sane(shipped):
    path, backbone = shipped
    assert path.stat().st_size < 2_000_000
    assert all(np.isfinite(weights).all() for weights in backbone.get_weights())


def test_the_shipped_features_tell_nuts_apart_better_than_random_ones(shipped):
    """Nearest class mean, 8 pictures a class to learn from and 4 to ask about; chance is 0.1."""
    known, asked = (
        np.stack([draw(label, split, i, 0) for label in range(len(CLASSES)) for i in range(n)])
        for split, n in (("train", 8), ("valid", 4))
    )

    def accuracy(backbone):
        pooled = trunk(backbone)
        means, vectors = (pooled(pixels / 127.5 - 1).numpy() for pixels in (known, asked))
        assert np.isfinite(vectors).all()
        scale = means.std(0) + 1e-6
        means = means.reshape(len(CLASSES), 8, -1).mean(1)
        distances = (((vectors[:, None] - means) / scale) ** 2).sum(-1)
        return (distances.argmin(1) == np.arange(len(CLASSES)).repeat(4)).mean()

    keras.utils.set_random_seed(0)
    assert accuracy(shipped[1]) > accuracy(find_spec(pretrain.BACKBONE).build()) + 0.2
