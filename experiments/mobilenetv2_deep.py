"""MobileNetV2 on tree nuts, fine-tuned far down: for a GPU, or for a night on a processor.

Run: make sweep STUDY=mobilenetv2_deep

Its trial 0 alone, of version 0.2, asked with the untouched image:
out-of-fold accuracy 0.800 (930/1163, 95 % 0.776-0.822), 48 of 50 valid images, in 13 min 12 s on
2 cores (AMD EPYC) beside other work, commit 07f85cc. The whole study was not measured.
"""

from nutclf.config import Recipe, SearchSpace, StudyConfig

STUDY = StudyConfig(
    name="mobilenetv2-deep",
    backbone="mobilenetv2",
    space=SearchSpace(
        n_unfrozen=(20, 29, 56),
        epochs=(6, 20),
        lr_schedule=("cosine", "step"),
        # At 1e-3 deep layers forget what they knew: out-of-fold accuracy 0.44 after one epoch.
        learning_rate=(1e-4, 6e-4),
        batch_size=(32,),
        warmup_epochs=(8,),
    ),
    baseline=Recipe(
        n_unfrozen=56,
        epochs=12,
        lr_schedule="cosine",
        learning_rate=3e-4,
        batch_size=32,
        warmup_epochs=8,
    ),
    n_views=9,  # a view costs seconds; the tenth epoch sees the first again
)
