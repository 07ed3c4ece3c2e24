"""EfficientNetV2-B0 on tree nuts: an example of any other network of `keras.applications`.

Run: make sweep STUDY=efficientnetv2b0

It needs Keras' weights, which do not ship with the package: an internet connection, or
`efficientnetv2b0_no_top.weights.h5` in the folder NUTCLF_WEIGHTS. Not measured.
"""

from nutclf.config import SearchSpace, StudyConfig

STUDY = StudyConfig(
    name="efficientnetv2b0",
    backbone="efficientnetv2b0",
    space=SearchSpace(
        # The head alone; the last convolution; the last one, two and four of its blocks.
        n_unfrozen=(0, 3, 18, 33, 63),
        epochs=(3, 9),
        learning_rate=(1e-4, 1e-3),
        batch_size=(32,),
        warmup_epochs=(8,),
    ),
    n_views=9,
)
