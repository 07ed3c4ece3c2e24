"""Networks of keras.applications that nobody prepared: built, cut, fitted and saved."""

import numpy as np
import pytest

from nutclf.config import Ensemble, Recipe, SearchSpace, StudyConfig, View
from nutclf.model.backbones import load_backbone
from nutclf.train.feature_store import FeatureStore
from nutclf.train.jobs import assembled
from nutclf.train.workbench import Workbench

CLASSES = ("almonds", "cashews", "pecans", "walnuts")


# One that scales inside, one with another family of layers, and one that takes blue first.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "depth"), [("efficientnetv2b0", 18), ("convnexttiny", 8), ("resnet50", 10)]
)
def test_a_network_is_fitted_and_its_assembly_answers_like_the_fit(
    name, depth, draw_images, tmp_path
):
    backbone = load_backbone(name, "random", 64)
    space = SearchSpace(n_unfrozen=(depth, 4) if name == "resnet50" else (depth,))
    recipe = Recipe(depth, epochs=1, batch_size=8, warmup_epochs=1)
    config = StudyConfig("other", name, space, baseline=recipe, n_views=2, image_size=64)
    splits = {"train": draw_images(20, 64, 0), "valid": draw_images(8, 64, 1)}
    bench = Workbench(config, backbone, CLASSES, splits, FeatureStore(tmp_path, 1 << 30))
    probe, *_ = bench.fit_probes(np.arange(20) // 4 % 2)
    result = bench.fit(recipe)
    ensemble = Ensemble((View(), View(0.875)), probe.name, 0.5)
    found = assembled(bench, result, ensemble, probe)  # raises where it differs from the fit
    assert found.y_prob.shape == (8, 4)
    (tmp_path / "model.keras").write_bytes(found.keras_file)
    import keras

    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    y_prob = again.predict_on_batch(splits["valid"].pixels)
    np.testing.assert_allclose(y_prob, found.y_prob, atol=1e-5)
