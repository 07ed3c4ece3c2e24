"""What the benchmarks share: this project's workbench on a folder of photographs."""

from dataclasses import fields
from pathlib import Path

from nutclf.config import RANGES, Recipe, SearchSpace, StudyConfig
from nutclf.process import quiet, seed_everything


def study_of(recipes: list[Recipe], **settings) -> StudyConfig:
    """A study of MobileNetV2 whose space holds `recipes`; its views are as many as they need."""
    choices = {
        field.name: tuple(sorted({getattr(recipe, field.name) for recipe in recipes}))
        for field in fields(SearchSpace)
        if field.name not in RANGES
    }
    space = SearchSpace(epochs=(1, max(recipe.epochs for recipe in recipes)), **choices)
    return StudyConfig("benchmark", "mobilenetv2", space, baseline=recipes[0], **settings)


def open_bench(config: StudyConfig, data: Path, features: Path | None):
    """The data source, and a workbench whose features lie in `features` (None: from pixels)."""
    quiet()
    from nutclf.data.folder import read_split
    from nutclf.data.source import resolve
    from nutclf.model.backbones import load_backbone
    from nutclf.train.feature_store import FeatureStore
    from nutclf.train.workbench import Workbench

    seed_everything(config.seed)
    source = resolve(str(data.resolve()), environ={}, workdir=data)
    backbone = load_backbone(config.backbone)
    size = backbone.spec.image_size
    splits = {split: read_split(source.data, split, size) for split in ("train", "valid")}
    store = FeatureStore(features, int(20e9)) if features else None
    return source, Workbench(config, backbone, source.data.classes, splits, store)
