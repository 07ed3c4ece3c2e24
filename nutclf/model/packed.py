"""Weights packed without loss into a file small enough to ship with the package.

    python -m nutclf.model.packed SOURCE.weights.h5 TARGET.npz

A weight array with at most 256 different values becomes a palette and one byte a number. Kernels
that were quantised to 8 bits, as those of Google's MobileNetV2 for mobile phones, take a quarter of
their size that way. All other arrays are kept as float32.
"""

import sys
import zipfile
import zlib
from pathlib import Path

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
        with np.load(path, allow_pickle=False) as arrays:
            values = [_unpacked(arrays, weight.path) for weight in model.weights]
    except (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile, zlib.error) as error:
        raise _unfit(model, path, str(error).strip().strip("'\"")) from error
    for weight, value in zip(model.weights, values, strict=True):
        if tuple(weight.shape) != value.shape:
            raise _unfit(model, path, f"{weight.path} has shape {value.shape}")
    model.set_weights(values)


def _unpacked(arrays: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    if name in arrays:
        return arrays[name]
    return arrays[name + _PALETTE][arrays[name + _INDICES]]


def _unfit(model: keras.Model, path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} does not hold the packed weights of {model.name} ({reason[:200]}); fetch the "
        "file again from the repository, or make it with `python -m nutclf.model.packed`."
    )


def main(arguments: list[str]) -> None:
    """Packs a weights file of MobileNetV2 (alpha 1, no top)."""
    if len(arguments) != 2:
        raise SystemExit("usage: python -m nutclf.model.packed SOURCE.weights.h5 TARGET.npz")
    source, target = arguments
    model = keras.applications.MobileNetV2(include_top=False, weights=None)
    model.load_weights(source)
    pack(model, Path(target))
    print(f"{target}: {Path(target).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
