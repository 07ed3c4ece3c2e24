"""MobileNetV2 on tree nuts: how many layers to unfreeze, and how to train them.

Run: make sweep STUDY=mobilenetv2

2 cores, no GPU, commit 56b5fe3, 20 trials in 20 min: the champion's out-of-fold accuracy is 0.870
(1012/1163, 95 % 0.850-0.888; three seeds 0.870, 0.865, 0.854); on valid it has 49 of 50 images
right, on test 48 of 49. The mean of two linear models has 0.864 out of fold.
"""

from nutclf.config import SearchSpace, StudyConfig

# 4 is the published depth (743,306 trainable parameters); 11, 20 and 29 begin a block of the
# network and have all of its layers. Deeper ones cost minutes a fold: see mobilenetv2_deep.
DEPTHS = (0, 4, 11, 20, 29)

STUDY = StudyConfig(
    name="mobilenetv2",
    backbone="mobilenetv2",
    space=SearchSpace(
        n_unfrozen=DEPTHS,
        epochs=(3, 9),
        learning_rate=(1e-4, 1e-3),
        batch_size=(32,),
        warmup_epochs=(8,),
    ),
    # A view for each epoch; the warm-up of the head sees the first eight of them.
    n_views=9,
)
