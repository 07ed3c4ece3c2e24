"""Test-time views: fixed looks at an image, drawn with stock Keras operations.

The same function serves frozen features, the graph of the saved model and the exported file: a view
is taken of the square that the network sees, in the square's own pixels, and not of the original.
"""

import keras
from keras import ops

from nutclf.config import View


def look(squares: keras.KerasTensor, view: View) -> keras.KerasTensor:
    """A view of squares, float [B, S, S, 3] of any range, as squares of the same size.

    What a crop enlarges is interpolated bilinearly, as in training. The ground of a padded view has
    the mean colour of the square's outermost pixels.
    """
    size = squares.shape[1]
    if view.scale < 1:
        side = _even(size, view.scale)
        low = (size - side) // 2
        cropped = ops.image.crop_images(squares, low, low, target_height=side, target_width=side)
        squares = ops.image.resize(cropped, (size, size))
    elif view.scale > 1:
        side = _even(size, 1 / view.scale)
        low, ground = (size - side) // 2, _border_colour(squares, size)
        small = ops.image.resize(squares, (side, side)) - ground
        placed = ops.image.pad_images(small, low, low, target_height=size, target_width=size)
        squares = placed + ground
    return ops.flip(squares, axis=2) if view.mirrored else squares


def _even(size: int, share: float) -> int:
    """A side that leaves equal margins."""
    return size - 2 * round(size * (1 - share) / 2)


def _border_colour(squares: keras.KerasTensor, size: int) -> keras.KerasTensor:
    def strip(top: int, left: int, height: int, width: int) -> keras.KerasTensor:
        return ops.image.crop_images(squares, top, left, target_height=height, target_width=width)

    rows = ops.concatenate([strip(0, 0, 1, size), strip(size - 1, 0, 1, size)], axis=2)
    columns = ops.concatenate([strip(0, 0, size, 1), strip(0, size - 1, size, 1)], axis=1)
    sums = [ops.mean(edge, axis=(1, 2), keepdims=True) for edge in (rows, columns)]
    return (sums[0] + sums[1]) / 2
