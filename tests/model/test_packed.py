import os
from pathlib import Path

import keras
import numpy as np
import pytest

import nutclf
from nutclf.errors import UserError
from nutclf.model.backbones import load_packed
from nutclf.model.packed import pack

SHIPPED = Path(nutclf.__file__).parent / "model/mobilenet_v2_1.0_224_no_top.npz"
WEIGHTS = os.environ.get("NUTCLF_WEIGHTS")  # read here: no test sees the setting


def tiny(units=30):
    """A kernel of 300 different values, one of 256, and both zeros: the cases of a packing."""
    pixels = keras.Input((10,))
    hidden = keras.layers.Dense(units, name="many")(pixels)
    model = keras.Model(pixels, keras.layers.Dense(32, name="few")(hidden), name="tiny")
    rng = np.random.default_rng(0)
    few = rng.standard_normal(256, np.float32)[rng.integers(256, size=(units, 32))]
    few[:2, 0] = 0.0, -0.0
    many = rng.standard_normal((10, units), np.float32)
    model.set_weights([many, np.zeros(units), few, np.ones(32)])
    return model


def bits(model):
    return [np.asarray(value).tobytes() for value in model.get_weights()]


@pytest.fixture(scope="module")
def mobilenetv2_at_128():
    return keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(128, 128, 3), name="any-name"
    )


def test_what_is_loaded_is_what_was_packed_bit_for_bit(tmp_path):
    pack(tiny(), tmp_path / "tiny.npz")
    loaded = tiny()
    loaded.set_weights([np.zeros(value.shape) for value in loaded.get_weights()])
    load_packed(loaded, tmp_path / "tiny.npz")
    assert bits(loaded) == bits(tiny())


def test_few_values_take_a_byte_each_and_many_stay_as_they_are(tmp_path):
    pack(tiny(), tmp_path / "tiny.npz")
    with np.load(tmp_path / "tiny.npz") as arrays:
        assert arrays["few/kernel.indices"].dtype == np.uint8
        assert arrays["many/kernel"].dtype == np.float32


def test_equal_weights_make_equal_files(tmp_path):
    for name in ("a.npz", "b.npz"):
        pack(tiny(), tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_the_shipped_file_fills_mobilenetv2_at_another_size(mobilenetv2_at_128):
    load_packed(mobilenetv2_at_128, SHIPPED)
    assert SHIPPED.stat().st_size < 3e6
    variance = np.array(mobilenetv2_at_128.get_layer("Conv_1_bn").moving_variance)
    assert variance.std() > 0.01  # in a fresh network all are 1


@pytest.mark.photographs
@pytest.mark.skipif(not WEIGHTS, reason="NUTCLF_WEIGHTS is not set")
def test_the_shipped_file_is_made_from_the_weights_without_loss(mobilenetv2_at_128, tmp_path):
    source = Path(WEIGHTS) / f"{SHIPPED.stem}.weights.h5"
    mobilenetv2_at_128.load_weights(source)
    pack(mobilenetv2_at_128, tmp_path / "made.npz")
    load_packed(mobilenetv2_at_128, SHIPPED)
    shipped = bits(mobilenetv2_at_128)
    load_packed(mobilenetv2_at_128, tmp_path / "made.npz")
    assert bits(mobilenetv2_at_128) == shipped
    mobilenetv2_at_128.load_weights(source)
    assert bits(mobilenetv2_at_128) == shipped


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-200])


def damaged(path):
    content = bytearray(path.read_bytes())
    content[400:500] = bytes(100)
    path.write_bytes(content)


def foreign(path):
    path.write_text("<html>not found</html>")


def another_network(path):
    np.savez(path, kernel=np.zeros(3))


def another_width(path):
    pack(tiny(units=31), path)


def a_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def missing(path):
    path.unlink()


@pytest.mark.parametrize(
    "spoil", [cut_short, damaged, foreign, another_network, another_width, a_single_array, missing]
)
def test_an_unfit_file_is_refused_in_one_sentence_and_changes_nothing(spoil, tmp_path):
    path = tmp_path / "tiny.npz"
    pack(tiny(), path)
    spoil(path)
    model = tiny()
    with pytest.raises(UserError, match=r"tiny\.npz does not hold the packed weights of this"):
        load_packed(model, path)
    assert bits(model) == bits(tiny())
