"""DenseNet169 on tree nuts: how many layers to unfreeze, and how to train them.

Run: make sweep STUDY=densenet169

It needs DenseNet169's weights, which do not ship with the package. Not measured yet.
"""

from nutclf.config import SearchSpace, StudyConfig

# 4 is the published depth; 2 trains the last BatchNormalization alone. The others begin one of the
# last dense layers of the network, each of which is seven Keras layers.
DEPTHS = (0, 2, 4, 9, 16, 30, 58)

STUDY = StudyConfig(
    name="densenet169",
    backbone="densenet169",
    space=SearchSpace(
        n_unfrozen=DEPTHS,
        epochs=(3, 9),
        learning_rate=(1e-4, 1e-3),
        batch_size=(32,),
        warmup_epochs=(8,),
    ),
    n_views=9,
)
