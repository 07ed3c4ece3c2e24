"""MobileNetV2 on tree nuts: how many layers to unfreeze, and how to train them.

Run: make sweep STUDY=mobilenetv2

2 cores (AMD EPYC), partly beside other work, commit 2c4034e: 14 results in 36 min, then stopped.
The champion's out-of-fold accuracy is 0.789 (918/1163, 95 % 0.765-0.812; three seeds 0.789, 0.794,
0.792); on valid it has 48 of 50 images right, on test 46 of 49.
"""

from nutclf.config import SearchSpace, StudyConfig

# 4 is the published depth (743,306 trainable parameters); 11 and 20 begin a block of the network
# and have all of its layers. Deeper ones cost minutes a trial: see mobilenetv2_deep.
DEPTHS = (0, 4, 11, 20)

STUDY = StudyConfig(
    name="mobilenetv2",
    backbone="mobilenetv2",
    space=SearchSpace(
        n_unfrozen=DEPTHS,
        epochs=(3, 9),
        batch_size=(32, 64),
        warmup_epochs=(0, 8),
        label_smoothing=(0.0, 0.1),
        weight_decay=(0.0, 0.01),
        batch_norm=("still", "adapt"),
    ),
    # A warm-up of the head sees the first eight again: nine are enough for the longest training.
    n_views=9,
)
