"""MobileNetV2 on tree nuts, fine-tuned far down: for a GPU, or for a night on a processor.

Run: make sweep STUDY=mobilenetv2_deep

Its trial 0 alone, 2 cores (AMD EPYC) beside other work, code of commit 07f85cc: right on 930 of
1163 images out of fold (0.800, 95 % 0.776-0.822; 0.772 to 0.833 by fold) and on 48 of 50 valid
ones, in 13 min 12 s. The whole study was not measured.
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
    n_views=9,  # a view costs seconds; the tenth epoch sees the first again
)
