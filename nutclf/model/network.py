"""The trainable tail, and the deployable whole that takes raw pixels and is stock Keras."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import keras
import numpy as np

from nutclf.model import cuts
from nutclf.model.backbones import Backbone, BackboneSpec

HEAD_LAYERS = ("hidden", "dropout", "probabilities")


class _StillBatchNormalization(keras.layers.BatchNormalization):
    """Trains gamma and beta, and leaves the pretrained statistics alone, also under `fit`.

    There Keras overrides an explicit `bn(x, training=False)`. What is saved is stock Keras.
    """

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=False, mask=mask)


def _clone(layer: keras.Layer, batch_norm: str) -> keras.Layer:
    still = batch_norm == "still" and isinstance(layer, keras.layers.BatchNormalization)
    return (_StillBatchNormalization if still else type(layer)).from_config(layer.get_config())


def add_head(pooled: keras.KerasTensor, n_classes: int, dropout_rate: float, seed: int):
    """The published head: Dense, dropout, softmax; all its random numbers come from `seed`."""
    glorot, dense = keras.initializers.GlorotUniform, keras.layers.Dense
    hidden = dense(256, "relu", kernel_initializer=glorot(seed), name="hidden")(pooled)
    dropped = keras.layers.Dropout(dropout_rate, seed=seed, name="dropout")(hidden)
    last = dense(n_classes, "softmax", kernel_initializer=glorot(seed + 1), name="probabilities")
    return last(dropped)


def build_tail(
    trunk: keras.Model,
    cut: int,
    n_unfrozen: int,
    n_classes: int,
    dropout_rate: float,
    seed: int,
    batch_norm: str = "still",
) -> keras.Model:
    """The part of the network that a trial trains: what layer `cut` puts out to [B, n_classes].

    It has weights of its own. The last `n_unfrozen` backbone layers and the head are trainable;
    frozen layers behind the cut are in it too. For `batch_norm` see `nutclf.config.Recipe`.
    """
    features = keras.Input(trunk.layers[cut].output.shape[1:], name="features")
    last, pooled = len(trunk.layers) - 1, features
    if cut < last:
        source = cuts.between(trunk, cut, last)
        clone = partial(_clone, batch_norm=batch_norm)
        part = keras.models.clone_model(source, input_tensors=features, clone_function=clone)
        part.set_weights(source.get_weights())
        pooled = part.output
    model = keras.Model(features, add_head(pooled, n_classes, dropout_rate, seed), name="tail")
    thawed = {layer.name for layer in trunk.layers[last - n_unfrozen : last]}
    for layer in model.layers:
        layer.trainable = layer.name in thawed | set(HEAD_LAYERS)
    return model


def head_of(tail: keras.Model) -> keras.Model:
    """The head of a tail as a model of its own, pooled vectors [B, C] in, sharing its layers."""
    return keras.Model(tail.get_layer("hidden").input, tail.output, name="head")


def scaling_layer(spec: BackboneSpec) -> keras.Layer:
    """Raw pixels 0..255 to what the backbone expects, as a layer of the model."""
    return keras.layers.Rescaling(list(spec.scale), offset=list(spec.offset), name="scaling")


class Deployable:
    """The whole network as stock Keras, built once and refilled for each trial.

    Building 150 to 600 layers costs seconds and memory that Keras does not give back; the weights
    are all that differs between trials. `model` takes RGB 0..255 (uint8 or float) [B, H, W, 3],
    crops it to a square, resizes it, and gives probabilities [B, n_classes].
    """

    def __init__(self, backbone: Backbone, n_classes: int):
        spec = backbone.spec
        self._original = {layer.name: layer.get_weights() for layer in backbone.model.layers}
        pixels = keras.Input((None, None, 3), name="pixels")
        # The operation, not keras.layers.Resizing: that layer's `training` defaults to True and
        # leaks into the layers behind it: a plain `model(x)` would move BatchNorm statistics.
        side = (spec.image_size,) * 2
        resized = keras.ops.image.resize(pixels, side, antialias=True, crop_to_aspect_ratio=True)
        scaled = scaling_layer(spec)(resized)
        self._body = keras.models.clone_model(backbone.model)
        pooled = keras.layers.GlobalAveragePooling2D(name="pool")(self._body(scaled))
        self.model = keras.Model(pixels, add_head(pooled, n_classes, 0.5, 0), name="nutclf")

    def fill(self, tail: Mapping[str, Sequence[np.ndarray]], dropout_rate: float) -> keras.Model:
        """Puts a tail's weights, by layer name, behind the untouched prefix; returns the whole."""
        weights = self._original | dict(tail)
        for layer in (*self._body.layers, *self.model.layers):
            if layer.name in weights and layer is not self._body:
                layer.set_weights(weights[layer.name])
        self.model.get_layer("dropout").rate = dropout_rate
        return self.model


def predict(model: keras.Model, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """What a small model says of `images`, in their order, without tracing a graph for it."""
    return in_batches(partial(model, training=False), images, batch_size)


def predict_pixels(whole: keras.Model, pixels: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Probabilities [N, n_classes] of the whole network; its graph is traced on the first call."""
    return in_batches(whole.predict_on_batch, pixels, batch_size)


def in_batches(answer: Callable, images: np.ndarray, batch_size: int) -> np.ndarray:
    """What `answer` gives for all `images`, a batch at a time, in their order."""
    starts = range(0, len(images), batch_size)
    return np.concatenate([np.asarray(answer(images[i : i + batch_size])) for i in starts])


def parameter_counts(model: keras.Model) -> dict[str, int]:
    """`trainable`, `frozen` and `total` numbers of scalars in a model."""
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    total = int(model.count_params())
    return {"trainable": trainable, "frozen": total - trainable, "total": total}
