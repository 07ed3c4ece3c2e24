"""What the benchmarks share: this project's workbench on a folder of photographs."""

from pathlib import Path

from nutclf.cli.process import quiet, seed_everything
from nutclf.config import Recipe, SearchSpace, StudyConfig


def study_of(recipes: list[Recipe], **settings) -> StudyConfig:
    """A study of MobileNetV2 whose space holds `recipes`; its views are as many as they need."""
    space = SearchSpace(
        n_unfrozen=tuple(sorted({recipe.n_unfrozen for recipe in recipes})),
        epochs=(1, max(recipe.epochs for recipe in recipes)),
        lr_schedule=tuple(sorted({recipe.lr_schedule for recipe in recipes})),
        batch_size=tuple(sorted({recipe.batch_size for recipe in recipes})),
        warmup_epochs=tuple(sorted({recipe.warmup_epochs for recipe in recipes})),
        label_smoothing=tuple(sorted({recipe.label_smoothing for recipe in recipes})),
        weight_decay=tuple(sorted({recipe.weight_decay for recipe in recipes})),
        batch_norm=tuple(sorted({recipe.batch_norm for recipe in recipes})),
    )
    return StudyConfig("benchmark", "mobilenetv2", space, baseline=recipes[0], **settings)


def open_bench(config: StudyConfig, data: Path, features: Path | None):
    """The data source, and a workbench whose features lie in `features` (None: from pixels)."""
    quiet()
    from nutclf.data.source import resolve
    from nutclf.model.backbones import load_backbone
    from nutclf.search.session import labelled
    from nutclf.train.store import FeatureStore
    from nutclf.train.workbench import Workbench

    seed_everything(config.seed)
    source = resolve(str(data.resolve()), environ={}, workdir=data)
    backbone = load_backbone(config.backbone)
    splits = {
        split: labelled(source.folder, split, backbone.spec.image_size, print)
        for split in ("train", "valid")
    }
    store = FeatureStore(features, int(20e9)) if features else None
    return source, Workbench(config, backbone, source.folder.classes, splits, store)
