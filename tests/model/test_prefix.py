import numpy as np
import pytest

from nutclf.model import cuts
from nutclf.model.prefix import cut_to_cut

# Folding BatchNorm into the convolutions rounds otherwise, by some 1e-6 of the largest activation;
# a wrong layer, or the statistics of the batch, change it by 0.1 and more.
ROUNDING = 1e-5


def assert_close(found: np.ndarray, expected: np.ndarray, share: float = ROUNDING) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


@pytest.mark.parametrize("n_unfrozen", [0, 4, 20])
def test_the_constant_graph_gives_what_keras_gives(prefix_of, trunk, pixels, n_unfrozen):
    cut = cuts.cut_for_depth(trunk, n_unfrozen)
    scaled = pixels / np.float32(127.5) - 1
    expected = np.asarray(cuts.between(trunk, 0, cut)(scaled, training=False))
    assert expected.std(axis=0).max() > 0.05 * np.abs(expected).max()  # the images differ
    found = prefix_of(cut)(pixels)
    assert found.dtype == np.float32
    assert_close(found, expected)


def test_at_cut_0_it_is_the_scaling(prefix_of, pixels):
    found = prefix_of(0)(pixels)
    np.testing.assert_allclose(found, pixels / 127.5 - 1, atol=1e-6)


def test_it_takes_batches_of_any_size_and_does_not_mix_the_images_of_one(prefix_of, trunk, pixels):
    prefix = prefix_of(cuts.cut_for_depth(trunk, 20))
    together = prefix(pixels)
    for i in range(len(pixels)):
        assert_close(prefix(pixels[i : i + 1])[0], together[i])


def test_going_through_an_earlier_cut_ends_at_the_same_features(prefix_of, trunk, pixels):
    early, late = cuts.cut_for_depth(trunk, 20), cuts.cut_for_depth(trunk, 4)
    direct = prefix_of(late)(pixels)
    onwards = cut_to_cut(trunk, early, late)
    at_early = prefix_of(early)(pixels)
    assert_close(onwards(at_early), direct)
    halved = onwards(at_early.astype(np.float16))
    assert halved.dtype == np.float32
    assert_close(halved, direct, share=1e-3)


def test_later_changes_of_the_network_do_not_reach_the_constant_graph(prefix_of, trunk, pixels):
    prefix = prefix_of(cuts.cut_for_depth(trunk, 20))
    before = prefix(pixels[:1])
    kernel = trunk.get_layer("Conv1").kernel
    value = np.array(kernel)
    kernel.assign(value * 2)
    try:
        np.testing.assert_array_equal(prefix(pixels[:1]), before)
    finally:
        kernel.assign(value)
