"""Where a network looked: Grad-CAM on the last activation before its pooling."""

import keras
import numpy as np


def grad_cam(model: keras.Model, pixels: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Which places of an image raise the score of a class.

    R. R. Selvaraju et al., ICCV 2017: the last convolutional activation, its channels weighted by
    the mean gradient of the class's score, negative values set to 0. The score is the logit: the
    gradient of the softmax vanishes when the network is sure.

    Args:
      model: ends in a pooling (or flattening) layer and dense layers, the last of them the softmax,
        else `ValueError`; its backbone may be nested.
      pixels, class_ids: what the model takes, [N, S, S, 3]; the class asked about, int [N].

    Returns:
      float32 [N, h, w], as coarse as the activation; each map's largest value is 1, or 0 where
      nothing raises the score.
    """
    import tensorflow as tf

    pool, softmax = _pooling(model), model.layers[-1]
    # One model of both, as what answers may read earlier maps beside the last activation.
    both = keras.Model(model.input, [pool.input, softmax.input])
    with tf.GradientTape() as tape:
        images = tf.cast(pixels, tf.float32)
        tape.watch(images)
        activation, read = both(images, training=False)
        scores = read @ softmax.kernel + softmax.bias
        asked = tf.gather(scores, class_ids, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(asked, activation), axis=(1, 2), keepdims=True)
    maps = tf.nn.relu(tf.reduce_sum(weights * activation, axis=-1)).numpy()
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)


def _pooling(model: keras.Model) -> keras.Layer:
    """The layer that turns maps [B, h, w, C] into vectors; its input is of the outer graph."""
    if not isinstance(model.layers[-1], keras.layers.Dense):
        raise ValueError(f"model {model.name!r} does not end in a dense layer")
    for layer in reversed(model.layers):
        # Several inputs or outputs of a layer are a list, which has no shape.
        shapes = (getattr(tensors, "shape", ()) for tensors in (layer.input, layer.output))
        if [len(shape) for shape in shapes] == [4, 2]:
            return layer
    raise ValueError(f"model {model.name!r} has no layer that pools maps into vectors")
