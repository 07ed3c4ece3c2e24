"""Weights packed without loss: `python -m nutclf.model.packed SOURCE.weights.h5 TARGET.npz`.

A weight array with at most 256 different values, as in Google's MobileNetV2, which was quantised to
8 bits, becomes a palette and one byte a number. All other arrays are kept as float32.
"""

import sys
import zlib
from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np

from nutclf.errors import UserError

SHIPPED = Path(__file__).with_name("mobilenet_v2_1.0_224_no_top.npz")
"""MobileNetV2 without its top, for any image size; see NOTICE beside it."""

_PALETTE, _INDICES = ".palette", ".indices"


def pack(model: keras.Model, path: Path) -> None:
    """Writes the weights of `model`; equal weights give equal bytes."""
    arrays = {}
    for weight in model.weights:
        value = np.asarray(weight, np.float32)
        # Compared as bits: as numbers, 0 and -0 would be one value.
        palette, indices = np.unique(value.view(np.uint32), return_inverse=True)
        if len(palette) <= 256:
            arrays[weight.path + _PALETTE] = palette.view(np.float32)
            arrays[weight.path + _INDICES] = indices.reshape(value.shape).astype(np.uint8)
        else:
            arrays[weight.path] = value
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_packed(model: keras.Model, path: Path) -> None:
    """Fills `model` with the weights in `path`, bit for bit those that were packed.

    Raises:
      UserError: the file is missing, damaged or of another network; `model` is unchanged.
    """
    try:
        # Opened here: on a damaged file, `np.load` would leave its own handle open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            values = [_unpacked(arrays, weight.path) for weight in model.weights]
        for weight, value in zip(model.weights, values, strict=True):
            if tuple(weight.shape) != value.shape:
                raise ValueError(f"{weight.path} has shape {value.shape}")
    except (OSError, EOFError, BadZipFile, zlib.error, ValueError, LookupError, TypeError) as error:
        reason = str(error).strip().strip("'\"")[:200]
        raise UserError(
            f"{path} does not hold the packed weights of {model.name} ({reason}); fetch the file "
            "again from the repository, or make it with `python -m nutclf.model.packed`."
        ) from error
    model.set_weights(values)


def _unpacked(arrays: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    if name in arrays:
        return arrays[name]
    return arrays[name + _PALETTE][arrays[name + _INDICES]]


def main(source: str, target: str) -> None:
    """Packs a weights file of MobileNetV2 (alpha 1, no top)."""
    model = keras.applications.MobileNetV2(include_top=False, weights=None)
    model.load_weights(source)
    pack(model, Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
