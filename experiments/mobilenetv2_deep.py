"""MobileNetV2 on tree nuts, fine-tuned far down: for a GPU, or for a night on a processor.

Run: make sweep STUDY=mobilenetv2_deep
"""

from nutclf.config import Recipe, SearchSpace, StudyConfig

STUDY = StudyConfig(
    name="mobilenetv2-deep",
    backbone="mobilenetv2",
    space=SearchSpace(
        n_unfrozen=(20, 29, 56),
        epochs=(6, 20),
        lr_schedule=("cosine", "step"),
        # From 1e-3 on, deep layers forget what they knew: 0.44 out of fold after the first epoch.
        learning_rate=(1e-4, 6e-4),
        batch_size=(32,),
        warmup_epochs=(8,),
        label_smoothing=(0.1,),
        weight_decay=(0.01,),
        batch_norm=("still", "adapt"),
    ),
    baseline=Recipe(
        n_unfrozen=56,
        epochs=12,
        lr_schedule="cosine",
        learning_rate=3e-4,
        batch_size=32,
        warmup_epochs=8,
        label_smoothing=0.1,
        weight_decay=0.01,
        batch_norm="adapt",
    ),
    n_views=12,
)
