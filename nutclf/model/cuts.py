"""Where a network can be cut in two: layers through which every path from input to output runs."""

import keras


def trunk(backbone: keras.Model) -> keras.Model:
    """`backbone` followed by global average pooling: scaled images [B, S, S, 3] to vectors [B, C].

    The pooling is the last possible cut: behind it only the head is left.
    """
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    return keras.Model(backbone.input, pooled, name="trunk")


def cut_points(model: keras.Model) -> list[int]:
    """Indices into `model.layers` of the layers through which every path runs, in order.

    `model.layers` is in topological order, so layer i is such a layer exactly when nothing before
    it is read by anything behind it. Works for any Functional model with one input and one output.
    """
    position = {layer.name: i for i, layer in enumerate(model.layers)}
    last_reader = list(range(len(model.layers)))
    for i, layer in enumerate(model.layers):
        for producer in _producers(model, layer):
            last_reader[position[producer]] = max(last_reader[position[producer]], i)
    cuts, reach = [], 0
    for i in range(len(model.layers)):
        if reach <= i:
            cuts.append(i)
        reach = max(reach, last_reader[i])
    return cuts


def _producers(model: keras.Model, layer: keras.Layer) -> set[str]:
    """Names of the layers whose outputs `layer` reads inside `model`."""
    nodes = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    return {
        tensor._keras_history.operation.name
        for node in layer._inbound_nodes
        if id(node) in nodes
        for tensor in node.input_tensors
    }


def between(model: keras.Model, start: int, stop: int) -> keras.Model:
    """The part of `model` behind layer `start` up to and with layer `stop`, sharing its weights.

    Args:
      model: a Functional model.
      start, stop: positions from `cut_points(model)`, start < stop.
    """
    return keras.Model(model.layers[start].output, model.layers[stop].output)


def cut_for_depth(model: keras.Model, n_unfrozen: int) -> int:
    """The latest cut point of a trunk before which nothing trains.

    Args:
      model: made by `trunk`; its last layer is the pooling, which does not count.
      n_unfrozen: layers that train, counted from the backbone's output end.

    Returns:
      A position from `cut_points(model)`; all trainable layers lie behind it.
    """
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
