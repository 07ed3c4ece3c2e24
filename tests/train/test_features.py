from dataclasses import replace

import numpy as np
import pytest

from nutclf.config import WHOLE, Augmentation, View
from nutclf.data.folder import Split
from nutclf.model import cuts
from nutclf.train.feature_store import FeatureStore
from nutclf.train.features import Features, FrozenPart

ROWS = np.array([17, 0, 3, 4, 19])  # in no order, from both batches of the prefix
SHALLOW = Augmentation(rotation=0.05)


@pytest.fixture
def features_folder(tmp_path):
    return tmp_path / "features"


@pytest.fixture
def feature_store(features_folder) -> FeatureStore:
    return FeatureStore(features_folder, 1 << 30)


@pytest.fixture(scope="module")
def cut_of(part):
    return lambda n_unfrozen: cuts.cut_for_depth(part.trunk, n_unfrozen)


@pytest.mark.parametrize("view", [WHOLE, View(0.875, mirrored=True), 0, 1])
def test_stored_features_at_the_base_are_those_streamed_bit_for_bit(
    part, images, feature_store, view
):
    rows = np.arange(len(images.keys))
    stored = Features(part, part.base_cut, images, feature_store, "float32")
    streamed = Features(part, part.base_cut, images, None, "float32")
    np.testing.assert_array_equal(stored.batch(view, rows), streamed.batch(view, rows))


@pytest.mark.parametrize("view", [WHOLE, View(0.875, mirrored=True), 0, 1])
@pytest.mark.parametrize("n_unfrozen", [20, 4, 0])
def test_stored_features_of_any_rows_at_any_cut_are_those_streamed(
    part, cut_of, images, feature_store, n_unfrozen, view
):
    cut = cut_of(n_unfrozen)
    stored = Features(part, cut, images, feature_store, "float32").batch(view, ROWS)
    streamed = Features(part, cut, images, None, "float32").batch(view, ROWS)
    assert stored.dtype == streamed.dtype == np.float32
    assert stored.shape == (len(ROWS), *part.shape(cut))
    assert stored.std(axis=0).mean() > 0.01  # images differ
    # Equal to the bit where oneDNN computes; Eigen rounds otherwise in batches of other sizes.
    np.testing.assert_allclose(stored, streamed, atol=1e-5)


def test_views_differ_and_the_untouched_one_is_none_of_them(part, images, feature_store):
    features = Features(part, part.base_cut, images, feature_store, "float32")
    found = {
        features.batch(view, ROWS).tobytes()
        for view in (WHOLE, View(0.875), View(0.875, True), 0, 1)
    }
    assert len(found) == 5


def test_half_precision_is_close_and_comes_back_as_float32(part, cut_of, images, feature_store):
    for cut in (part.base_cut, cut_of(4)):
        full, half = (
            Features(part, cut, images, feature_store, dtype).batch(0, ROWS)
            for dtype in ("float32", "float16")
        )
        assert half.dtype == np.float32
        assert not np.array_equal(half, full)
        np.testing.assert_allclose(half, full, atol=2e-3 * np.abs(full).max())


def test_the_view_for_evaluation_keeps_full_precision(part, images, feature_store):
    full, half = (
        Features(part, part.base_cut, images, feature_store, dtype).batch(WHOLE, ROWS)
        for dtype in ("float32", "float16")
    )
    np.testing.assert_array_equal(half, full)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_size_of_views_is_known_before_they_are_made(
    part, images, feature_store, features_folder, dtype
):
    features = Features(part, part.base_cut, images, feature_store, dtype)
    for view in (0, 1, WHOLE):
        features.prepare(view)
    taken = [array.stat().st_size - 128 for array in features_folder.glob("*.npy")]  # the header
    assert features.size(drawn=2, fixed=1) == sum(taken)


def test_a_derived_cut_is_made_from_the_base_that_others_share(
    part, cut_of, images, feature_store, features_folder
):
    Features(part, cut_of(4), images, feature_store, "float32").prepare(0)
    assert len(list(features_folder.glob("*.json"))) == 2
    Features(part, cut_of(11), images, feature_store, "float32").prepare(0)
    assert len(list(features_folder.glob("*.json"))) == 3


def test_one_pass_over_the_pixels_makes_the_base_and_all_that_probes_read(
    part, images, feature_store, features_folder
):
    cuts_of_a_row = (part.base_cut, part.pool, part.levels)
    stores = (feature_store, None)
    (base, pooled, read), streamed = (
        [Features(part, cut, images, store, "float32").all(0) for cut in cuts_of_a_row]
        for store in stores
    )
    assert len(list(features_folder.glob("*.json"))) == 1
    np.testing.assert_array_equal(read[:, : pooled.shape[1]], pooled)
    np.testing.assert_allclose(pooled, part.base_to(part.pool)(base), atol=1e-5)
    assert read.shape == (len(images.keys), 1280 + 2 * 576 + 2 * 192)
    for ours, theirs in zip((base, pooled, read), streamed, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.fixture(scope="module")
def small_images() -> Split:
    """For the tiny network: three images at 32 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    return Split(pixels, np.arange(3), list("abc"), list("abc"))


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("nothing", {}),
        ("view", {"view": 1}),
        ("a fixed view", {"view": View(0.875)}),
        ("seed", {"seed": 1}),
        ("augmentation", {"augmentation": SHALLOW}),
        ("weights", {"digest": "1" * 64}),
        ("an image", {"keys": ["a", "b", "d"]}),
        ("the order of the images", {"keys": ["b", "a", "c"]}),
        ("precision", {"dtype": "float16"}),
        ("depth of the study", {"deepest": 3}),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_features_are_made_anew_when_anything_they_depend_on_changes(
    tiny_backbone, small_images, feature_store, features_folder, what, changes
):
    def prepare(**changed):
        usual = {"view": 0, "seed": 0, "augmentation": Augmentation(), "digest": "0"}
        usual |= {"keys": ["a", "b", "c"], "dtype": "float32", "deepest": 0}
        now = usual | changed
        backbone = replace(tiny_backbone, digest=now["digest"])
        part = FrozenPart(backbone, now["augmentation"], now["seed"], now["deepest"])
        images = replace(small_images, keys=now["keys"])
        last = len(part.trunk.layers) - 1
        Features(part, last, images, feature_store, now["dtype"]).prepare(now["view"])
        return len(list(features_folder.glob("*.json")))

    before = prepare()
    assert (prepare(**changes) > before) == (what != "nothing")
