"""Packs MobileNetV2's weights without loss into a file small enough to ship; a script.

    python -m nutclf.model.packed SOURCE.weights.h5 TARGET.npz

A weight array of at most 256 different values becomes a palette and one byte a number: kernels that
were quantised to 8 bits take a quarter of their size. All other arrays are kept as float32.
"""

import sys
from pathlib import Path

import keras
import numpy as np


def pack(model: keras.Model, path: Path) -> None:
    """Writes the weights of `model`; equal weights give equal bytes."""
    arrays = {}
    for weight in model.weights:
        value = np.asarray(weight, np.float32)
        # Compared as bits: as numbers, 0 and -0 would be one value.
        palette, indices = np.unique(value.view(np.uint32), return_inverse=True)
        if len(palette) <= 256:
            arrays[weight.path + ".palette"] = palette.view(np.float32)
            arrays[weight.path + ".indices"] = indices.reshape(value.shape).astype(np.uint8)
        else:
            arrays[weight.path] = value
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m nutclf.model.packed SOURCE.weights.h5 TARGET.npz")
    network = keras.applications.MobileNetV2(include_top=False, weights=None)
    network.load_weights(sys.argv[1])
    pack(network, Path(sys.argv[2]))
