"""MobileNetV2 on tree nuts: how many layers to unfreeze, and how to train them.

Run: make sweep STUDY=mobilenetv2
"""

from nutclf.config import SearchSpace, StudyConfig

# 4 is the published depth (743,306 trainable parameters); the others begin a block of the network,
# so each has all of a block's layers, and only what enters that block has to be kept.
DEPTHS = (0, 4, 11, 20, 29, 38, 47, 56)

STUDY = StudyConfig(
    name="mobilenetv2",
    backbone="mobilenetv2",
    space=SearchSpace(n_unfrozen=DEPTHS),
)
