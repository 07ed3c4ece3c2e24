"""What a tail trains on: the frozen prefix applied to every view, from the store or on the fly."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, cached_property, partial

import keras
import numpy as np
import tensorflow as tf

from nutclf.config import Augmentation, View
from nutclf.data.folder import Split
from nutclf.model import cuts
from nutclf.model.backbones import Backbone
from nutclf.model.network import in_batches
from nutclf.model.prefix import (
    Runner,
    batch_size,
    compiler,
    cut_to_cut,
    pixels_to_cut,
    pixels_to_row,
)
from nutclf.model.tta import look
from nutclf.train.feature_store import FeatureStore
from nutclf.train.views import Augmenter

# Images are judged by fixed views: those keep full precision, so that the whole network gives the
# same probabilities as its tail.
_FIXED_DTYPE = "float32"

AnyView = int | View
"""An augmented view by its number, 0 and up, or a fixed one."""


class FrozenPart:
    """The frozen network of one study: pixels to any cut, each graph traced once.

    One pass over the pixels of a view makes a row of each image: its features at the base cut,
    flat, then what probes read of all levels, of which the pooled last maps come first. Where a cut
    is asked for, `levels` stands for that.

    Args:
      backbone: its weights are read, never changed.
      augmentation, seed: of the study; they fix every view.
      deepest: the largest number of unfrozen layers. What enters them, at the base cut, is computed
        from pixels, and the features of every later cut from that, by `base_to(cut)`.
    """

    def __init__(self, backbone: Backbone, augmentation: Augmentation, seed: int, deepest: int):
        self.backbone, self.augmentation, self.seed = backbone, augmentation, seed
        self.trunk = cuts.trunk(backbone.model)
        self.base_cut = cuts.cut_for_depth(self.trunk, deepest)
        self.pool, self.levels = len(self.trunk.layers) - 1, len(self.trunk.layers)
        self._level_layers = [self.trunk.layers[level] for level in cuts.levels(self.trunk)]
        self._augmenter = Augmenter(augmentation, backbone.spec.image_size, seed)
        self._pixels_to = cache(partial(pixels_to_cut, backbone.spec, self.trunk))
        self.base_to = cache(partial(cut_to_cut, self.trunk, self.base_cut))

    def shape(self, cut: int) -> tuple[int, ...]:
        """Of the features of one image at `cut`."""
        if cut == self.levels:
            last, *earlier = (layer.output.shape[-1] for layer in self._level_layers)
            return (last + 2 * sum(earlier),)
        return tuple(self.trunk.layers[cut].output.shape[1:])

    def columns(self, cut: int) -> slice | None:
        """Where in a row the features at `cut` are; None: they have to be computed from it."""
        base, (pooled,) = math.prod(self.shape(self.base_cut)), self.shape(self.pool)
        parts = {self.pool: slice(base, base + pooled), self.levels: slice(base, None)}
        return (parts | {self.base_cut: slice(base)}).get(cut)

    @property
    def row_length(self) -> int:
        """Numbers that are kept of one image."""
        return math.prod(self.shape(self.base_cut)) + self.shape(self.levels)[0]

    def from_pixels(self, cut: int, view: AnyView, images: Split, rows: np.ndarray) -> np.ndarray:
        """Features at `cut` of view `view` of `rows`, a batch of the images."""
        return self._pixels_to(cut)(self._seen(view, images, rows))

    def rows_from_pixels(self, view: AnyView, images: Split, rows: np.ndarray) -> np.ndarray:
        """The rows of view `view` of `rows`, a batch of the images."""
        return self._pixels_to_row(self._seen(view, images, rows))

    @cached_property
    def _pixels_to_row(self) -> Runner:
        return pixels_to_row(self.backbone.spec, self.trunk, self.base_cut)

    def _seen(self, view: AnyView, images: Split, rows: np.ndarray) -> np.ndarray:
        pixels = images.pixels[rows]
        if isinstance(view, View):
            return np.asarray(look(tf.cast(pixels, tf.float32), view))
        return self._augmenter.view(pixels, [images.keys[row] for row in rows], view)

    def describes(self, cut: int | None) -> dict:
        """What features at `cut`, or rows (None), depend on, besides the images and the view."""
        levels = [layer.name for layer in self._level_layers]
        return {
            "backbone": self.backbone.spec.name,
            "image_size": self.backbone.spec.image_size,
            "weights": self.backbone.digest,
            "cut": levels if cut is None else self.trunk.layers[cut].name,
            # Rounded to half precision in between, a derived entry is not bit for bit a direct one.
            "base_cut": self.trunk.layers[self.base_cut].name,
            "seed": self.seed,
            "augmentation": vars(self.augmentation),
            "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
            "compiler": compiler(),
        }


class Features:
    """Features of some images at one cut: one memory-mapped array a view.

    Without a store they are computed anew for each batch: slower, and no disk is needed.
    """

    def __init__(
        self, part: FrozenPart, cut: int, images: Split, store: FeatureStore | None, dtype: str
    ):
        self._part, self._cut, self._images = part, cut, images
        self._store, self._dtype = store, dtype
        self._digest = hashlib.sha256("\n".join(images.keys).encode()).hexdigest()
        self._views: dict[AnyView, np.ndarray] = {}

    def size(self, drawn: int, fixed: int) -> int:
        """Bytes that so many augmented and fixed views take when they are kept."""
        stored = self._part.columns(self._cut) is not None
        one = self._part.row_length if stored else math.prod(self._part.shape(self._cut))
        widths = drawn * np.dtype(self._dtype).itemsize + fixed * np.dtype(_FIXED_DTYPE).itemsize
        return one * widths * len(self._images.keys)

    def prepare(self, view: AnyView) -> None:
        """Makes the features of `view` now, if they are to be kept and are not there yet."""
        if self._store and view not in self._views:
            columns = self._part.columns(self._cut)
            made = self._rows(view, columns) if columns else self._derived(view)
            self._views[view] = made

    def batch(self, view: AnyView, rows: np.ndarray) -> np.ndarray:
        """Features [len(rows), ...] of view `view` for the images `rows`, float32."""
        if self._store is None:
            return in_batches(partial(self._streamed, view), rows, batch_size())
        self.prepare(view)
        found = self._views[view][rows].astype(np.float32, copy=False)
        return found.reshape(len(rows), *self._part.shape(self._cut))

    def all(self, view: AnyView) -> np.ndarray:
        """Features of all images, float32 [N, ...]."""
        return self.batch(view, np.arange(len(self._images.keys)))

    def _streamed(self, view: AnyView, rows: np.ndarray) -> np.ndarray:
        part, cut = self._part, self._cut
        if cut != part.levels:
            return part.from_pixels(cut, view, self._images, rows)
        return part.rows_from_pixels(view, self._images, rows)[:, part.columns(cut)]

    def _rows(self, view: AnyView, columns: slice) -> np.ndarray:
        make = partial(self._part.rows_from_pixels, view, self._images)
        return self._stored(None, view, (self._part.row_length,), make)[:, columns]

    def _derived(self, view: AnyView) -> np.ndarray:
        def make(rows: np.ndarray) -> np.ndarray:
            return part.base_to(cut)(base[rows].reshape(len(rows), *part.shape(part.base_cut)))

        part, cut = self._part, self._cut
        base = self._rows(view, part.columns(part.base_cut))
        return self._stored(cut, view, part.shape(cut), make)

    def _stored(
        self,
        cut: int | None,
        view: AnyView,
        shape: tuple[int, ...],
        make: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        def fill(out: np.ndarray) -> None:
            for start in range(0, len(out), size := batch_size()):
                rows = np.arange(start, min(start + size, len(out)))
                out[rows] = make(rows)

        fixed = isinstance(view, View)
        named = asdict(view) if fixed else view
        key = self._part.describes(cut) | {"view": named, "images": self._digest}
        dtype = _FIXED_DTYPE if fixed else self._dtype
        return self._store.get(key, (len(self._images.keys), *shape), dtype, fill)
