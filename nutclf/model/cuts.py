"""Where a network can be cut in two: layers through which every path from input to output runs."""

from itertools import accumulate, pairwise

import keras

LEVELS = 3  # that a probe reads; a fourth brought nothing more, see docs/results.md


def trunk(backbone: keras.Model) -> keras.Model:
    """`backbone` and average pooling, the last possible cut: scaled [B, S, S, 3] to [B, C]."""
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    return keras.Model(backbone.input, pooled, name="trunk")


def cut_points(model: keras.Model) -> list[int]:
    """Indices into `model.layers` of the layers through which every path runs, in order.

    `model.operations`, layers and what is none (a plain `+`), are in topological order, so one is
    such a layer exactly when nothing before it is read by anything behind it. Works for any
    Functional model with one input and one output.
    """
    operations, layers = model.operations, {id(layer): i for i, layer in enumerate(model.layers)}
    position = {id(operation): i for i, operation in enumerate(operations)}
    nodes = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    last_reader = list(range(len(operations)))
    for i, operation in enumerate(operations):
        # A layer may be used elsewhere too: only the nodes of this model count.
        for node in (node for node in operation._inbound_nodes if id(node) in nodes):
            for tensor in node.input_tensors:
                last_reader[position[id(tensor._keras_history.operation)]] = i
    reach = accumulate([0, *last_reader], max)  # how far what lies before each one is read
    cuts = (one for i, (one, far) in enumerate(zip(operations, reach, strict=False)) if far <= i)
    return [layers[id(one)] for one in cuts if id(one) in layers]


def between(model: keras.Model, start: int, stop: int) -> keras.Model:
    """The part of `model` behind cut point `start` up to and with `stop`, sharing its weights."""
    return keras.Model(model.layers[start].output, model.layers[stop].output)


def levels(model: keras.Model) -> list[int]:
    """The cut points that a probe reads, the last first.

    The last maps of all, and the last ones before each of the two last times that maps shrink.
    """
    maps = [
        cut
        for cut in cut_points(model)[1:]
        if len(model.layers[cut].output.shape) == 4
        and not isinstance(model.layers[cut], keras.layers.ZeroPadding2D)
    ]
    side = {cut: model.layers[cut].output.shape[1] for cut in maps}
    shrunk = [cut for cut, behind in pairwise(maps) if side[behind] < 0.75 * side[cut]]
    return [maps[-1], *shrunk[::-1]][:LEVELS]


def cut_for_depth(model: keras.Model, n_unfrozen: int) -> int:
    """The latest cut point before the last `n_unfrozen` layers, pooling not counted, of a trunk."""
    first_trainable = len(model.layers) - 1 - n_unfrozen
    # Layers without weights may stay in the prefix: nothing in them trains.
    while first_trainable < len(model.layers) and not model.layers[first_trainable].weights:
        first_trainable += 1
    return max(cut for cut in cut_points(model) if cut < first_trainable)


def distinct_depths(backbone: keras.Model) -> list[int]:
    """Depths that really differ: each unfreezes more weights than the one before; 0 first.

    Many layers (ReLU, Add, ZeroPadding) carry no weights: unfreezing one of them changes nothing.
    """
    layers = backbone.layers
    return [0] + [depth for depth in range(1, len(layers) + 1) if layers[-depth].trainable_weights]
