"""The trainable tail, and the deployable whole that takes raw pixels and is stock Keras."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import keras
import numpy as np

from nutclf.config import PLAIN, Ensemble, View
from nutclf.model import cuts
from nutclf.model.backbones import Backbone, BackboneSpec
from nutclf.model.tta import look

HEAD_LAYERS = ("hidden", "dropout", "probabilities")


class _StillBatchNormalization(keras.layers.BatchNormalization):
    """Trains gamma and beta, and leaves the pretrained statistics alone, also under `fit`.

    There Keras overrides an explicit `bn(x, training=False)`. What is saved is stock Keras.
    """

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=False, mask=mask)


def _clone(layer: keras.Layer) -> keras.Layer:
    is_norm = isinstance(layer, keras.layers.BatchNormalization)
    return (_StillBatchNormalization if is_norm else type(layer)).from_config(layer.get_config())


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
) -> keras.Model:
    """The part of the network that a trial trains: what layer `cut` puts out to [B, n_classes].

    It has weights of its own. The last `n_unfrozen` backbone layers and the head are trainable;
    frozen layers behind the cut are in it too.
    """
    features = keras.Input(trunk.layers[cut].output.shape[1:], name="features")
    last, pooled = len(trunk.layers) - 1, features
    if cut < last:
        source = cuts.between(trunk, cut, last)
        part = keras.models.clone_model(source, input_tensors=features, clone_function=_clone)
        part.set_weights(source.get_weights())
        pooled = part.output
    model = keras.Model(features, add_head(pooled, n_classes, dropout_rate, seed), name="tail")
    thawed = {layer.name for layer in trunk.layers[last - n_unfrozen : last]}
    for layer in model.layers:
        layer.trainable = layer.name in thawed | set(HEAD_LAYERS)
    return model


def in_precision(tail: keras.Model, precision: str) -> keras.Model:
    """A copy of a tail that computes in a Keras dtype policy; weights and softmax stay float32."""

    def copied(layer: keras.Layer) -> keras.Layer:
        policy = "float32" if layer.name == HEAD_LAYERS[-1] else precision
        return type(layer).from_config(layer.get_config() | {"dtype": policy})

    copy = keras.models.clone_model(tail, clone_function=copied)
    copy.set_weights(tail.get_weights())
    return copy


def head_of(tail: keras.Model) -> keras.Model:
    """The head of a tail as a model of its own, pooled vectors [B, C] in, sharing its layers."""
    return keras.Model(tail.get_layer("hidden").input, tail.output, name="head")


def read_levels(maps: Sequence[keras.KerasTensor]) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """What a probe reads of the maps [B, h, w, C] at `cuts.levels`, [B, F]; the last ones pooled.

    The mean of each channel over its map, and of the earlier, larger maps its standard deviation
    too. Linear models on several levels: U. Evci et al., ICML 2022.
    """
    pooled = keras.layers.GlobalAveragePooling2D()(maps[0])
    read = [pooled]
    for each in maps[1:]:
        read += [keras.ops.mean(each, axis=(1, 2)), keras.ops.std(each, axis=(1, 2))]
    return keras.ops.concatenate(read, axis=1), pooled


def scaling_layer(spec: BackboneSpec) -> Callable:
    """Raw pixels 0..255 to what the backbone expects, as layers of the model."""
    rescale = keras.layers.Rescaling(list(spec.scale), offset=list(spec.offset), name="scaling")
    return (lambda pixels: rescale(keras.ops.flip(pixels, axis=-1))) if spec.bgr else rescale


class Deployable:
    """The whole network as stock Keras, built once for each way to answer, refilled for each trial.

    Building 150 to 600 layers costs seconds and memory that Keras does not give back; the weights
    are all that differs between most trials. A whole takes RGB 0..255 (uint8 or float)
    [B, H, W, 3], crops it to a square, resizes it, draws the ensemble's views of that, and gives
    the mean of its layer "network" over them, probabilities [B, n_classes]. That layer has frozen
    pooled features of its views beside them, [B, C].
    """

    def __init__(self, backbone: Backbone, n_classes: int):
        self._backbone, self._n_classes = backbone, n_classes
        self._original = {layer.name: layer.get_weights() for layer in backbone.model.layers}
        self._networks: dict[tuple, keras.Model] = {}
        self._wholes: dict[tuple, keras.Model] = {}

    def fill(
        self,
        tail: Mapping[str, Sequence[np.ndarray]],
        dropout_rate: float = 0.5,
        ensemble: Ensemble = PLAIN,
        linear: Sequence[np.ndarray] = (),
        cut: int = 0,
    ) -> keras.Model:
        """Puts weights of a tail, by layer name, behind the untouched prefix; returns the whole.

        `linear` is the probe's kernel [F, n_classes] and bias, on what `read_levels` gives of the
        frozen network; without a tail it answers alone. `cut` is where the tail begins: what comes
        out there is frozen, and a probe beside the tail needs the frozen layers behind it again.
        """
        alone, blended = not tail, bool(tail and ensemble.probe)
        key = alone, ensemble.weight if blended else 0, 0 if alone else cut
        if key not in self._networks:
            self._networks[key] = self._build(*key)
        network = self._networks[key]
        weights = self._original | dict(tail) | ({"probe": linear} if len(linear) else {})
        for layer in (*network.layers, *network.get_layer("body").layers):
            if layer.name in weights:
                layer.set_weights(weights[layer.name])
        if tail:
            network.get_layer("dropout").rate = dropout_rate
        if (key, ensemble.views) not in self._wholes:
            self._wholes[key, ensemble.views] = self._with_views(network, ensemble.views)
        return self._wholes[key, ensemble.views]

    def _build(self, alone: bool, weight: float, cut: int) -> keras.Model:
        """The network of one view: squares [B, S, S, 3] to probabilities and frozen features."""
        spec, model, n_classes = self._backbone.spec, self._backbone.model, self._n_classes
        squares = keras.Input((spec.image_size, spec.image_size, 3), name="squares")
        body, last = keras.models.clone_model(model), len(model.layers) - 1
        cut = last if alone else min(cut, last)
        levels = cuts.levels(model) if alone or weight else []
        inside = sorted({last, cut, *(level for level in levels if level <= cut)})
        body = keras.Model(body.input, [body.layers[i].output for i in inside], name="body")
        found = dict(zip(inside, body(scaling_layer(spec)(squares)), strict=True))
        features, at_cut = found[last], found[cut]
        if behind := [level for level in levels if level > cut]:
            outputs = [model.layers[level].output for level in behind]
            part = keras.Model(model.layers[cut].output, outputs)
            again = keras.models.clone_model(part)
            again.set_weights(part.get_weights())
            found |= dict(zip(behind, again(at_cut), strict=True))
        linear = keras.layers.Dense(n_classes, "softmax", name="probe")
        read, frozen = read_levels([found[level] for level in levels]) if levels else (None, None)
        if alone:
            return keras.Model(squares, [linear(read), frozen], name="network")
        pooling = keras.layers.GlobalAveragePooling2D
        pooled = pooling(name="pool")(features)
        answer = add_head(pooled, n_classes, 0.5, 0)
        if weight:
            answer = (1 - weight) * answer + weight * linear(read)
        else:
            frozen = pooling(name="cut_pool")(at_cut) if 0 < cut < last else pooled
        return keras.Model(squares, [answer, frozen], name="network")

    def _with_views(self, network: keras.Model, views: Sequence[View]) -> keras.Model:
        pixels, size = keras.Input((None, None, 3), name="pixels"), self._backbone.spec.image_size
        # The operation, not keras.layers.Resizing: that layer's `training` defaults to True and
        # leaks into the layers behind it: a plain `model(x)` would move BatchNorm statistics.
        resize = partial(keras.ops.image.resize, size=(size, size), antialias=True)
        squares = resize(pixels, crop_to_aspect_ratio=True)
        seen = [look(squares, view) for view in views]
        # One call for all views: Keras traces the network once.
        together = seen[0] if len(seen) == 1 else keras.ops.concatenate(seen, axis=0)
        each, _ = network(keras.layers.Identity(name="views")(together))
        if len(seen) > 1:
            by_view = keras.ops.reshape(each, (len(seen), -1, self._n_classes))
            each = keras.ops.mean(by_view, axis=0)
        return keras.Model(pixels, each, name="nutclf")


def of_one_view(whole: keras.Model) -> keras.Model:
    """The network of a whole without resizing and views: squares [B, S, S, 3] to probabilities."""
    if "network" in [layer.name for layer in whole.layers]:
        network = whole.get_layer("network")
        return keras.Model(network.input, network.outputs[0])
    return keras.Model(whole.get_layer("scaling").input, whole.output)  # logged before 0.3


def without_probe(whole: keras.Model) -> keras.Model:
    """The network of one view, without a probe beside it; a probe may be all there is."""
    network = of_one_view(whole)
    names = [layer.name for layer in network.layers]
    answering = HEAD_LAYERS[-1] if HEAD_LAYERS[-1] in names else "probe"
    return keras.Model(network.input, network.get_layer(answering).output)


def predict(model: keras.Model, images: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Probabilities [N, n_classes] of `images` [N, ...], whose graph is traced on the first call.

    The views of a whole network go through it together: 16 photographs may be 160 squares.
    """
    return in_batches(model.predict_on_batch, images, batch_size)


def in_batches(answer: Callable, images: np.ndarray, batch_size: int) -> np.ndarray:
    """What `answer` gives for all `images`, a batch at a time, in their order."""
    starts = range(0, len(images), batch_size)
    return np.concatenate([np.asarray(answer(images[i : i + batch_size])) for i in starts])


def n_trainable(model: keras.Model) -> int:
    """How many numbers of a model train."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
