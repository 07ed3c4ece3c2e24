"""DenseNet169 on tree nuts: how many layers to unfreeze, and how to train them.

Run: make sweep STUDY=densenet169
"""

from nutclf.config import SearchSpace, StudyConfig

# 4 is the published depth, 2 trains the last normalisation alone; the others begin one of the last
# dense layers, seven network layers each behind the final normalisation and activation.
DEPTHS = (0, 2, 4, 9, 16, 30, 58)

STUDY = StudyConfig(
    name="densenet169",
    backbone="densenet169",
    space=SearchSpace(n_unfrozen=DEPTHS),
)
