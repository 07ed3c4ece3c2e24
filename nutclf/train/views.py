"""Augmented views: view v of an image is a pure function of the seed, v and that image's key.

Nothing depends on which batch an image came in, so features computed once stand for the pixels
that an uncached run would have drawn, and any worker draws the same ones.
"""

import hashlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from nutclf.config import Augmentation


class _PureSeed(keras.random.SeedGenerator):
    """Hands Keras' random layers a seed computed from data instead of from a stored state.

    Keras' layers take an integer or a SeedGenerator; an integer is fixed when the graph is traced,
    and a stock generator counts calls, which would make a view depend on the order of the images.
    """

    def __init__(self, seed: tf.Tensor):  # no super(): the state that it makes is what we avoid
        self._seed, self._draws = seed, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        self._draws += 1
        return self._seed + tf.constant([0, self._draws], tf.int32)


def view_seed(seed: int, view: int, key: str) -> tuple[int, int]:
    """Two 31-bit integers that name one view of one image."""
    digest = hashlib.sha256(f"{seed}/{view}/{key}".encode()).digest()
    # The low byte is left free: _PureSeed counts its draws there.
    return int.from_bytes(digest[:4], "big") >> 1, (int.from_bytes(digest[4:8], "big") >> 9) << 8


class Augmenter:
    """Draws views of images of `size` by `size` pixels; its graph is traced once."""

    def __init__(self, augmentation: Augmentation, size: int, seed: int):
        enlarged = round(size * augmentation.resize)
        flips = [keras.layers.RandomFlip("horizontal")] if augmentation.horizontal_flip else []
        self._layers = [
            keras.layers.RandomRotation(augmentation.rotation, fill_mode="reflect"),
            keras.layers.Resizing(enlarged, enlarged),
            keras.layers.RandomCrop(size, size),
            *flips,
            keras.layers.RandomZoom(augmentation.zoom, fill_mode="reflect"),
        ]
        self._seed = seed
        shapes = [(None, size, size, 3), tf.uint8], [(None, 2), tf.int32]
        signature = [tf.TensorSpec(*each) for each in shapes]
        self._graph = tf.function(self._batch, input_signature=signature)

    def view(self, pixels: np.ndarray, keys: Sequence[str], view: int) -> np.ndarray:
        """View `view`, 0 and up, of uint8 RGB images [B, S, S, 3], as such.

        `keys` name the images, the same for the same pixels (their content's hash).
        """
        seeds = np.array([view_seed(self._seed, view, key) for key in keys], np.int32)
        return self._graph(pixels, seeds).numpy()

    def _batch(self, pixels: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        images = tf.cast(pixels, tf.float32)
        changed = tf.map_fn(self._augment, (images, seeds), fn_output_signature=tf.float32)
        return tf.cast(tf.clip_by_value(tf.round(changed), 0, 255), tf.uint8)

    def _augment(self, image_and_seed: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, source = image_and_seed[0], _PureSeed(image_and_seed[1])
        for layer in self._layers:
            if isinstance(layer, keras.layers.Resizing):
                image = layer(image)
            else:
                change = layer.get_random_transformation(image, training=True, seed=source)
                image = layer.transform_images(image, change, training=True)
        return image
