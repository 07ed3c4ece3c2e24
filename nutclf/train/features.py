"""What a tail trains on: the frozen prefix applied to every view, from the store or on the fly."""

import hashlib
from collections.abc import Iterator
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf

from nutclf.config import Augmentation
from nutclf.data.folder import Split
from nutclf.model import cuts
from nutclf.model.backbones import Backbone
from nutclf.model.prefix import BATCH_SIZE, Prefix, compiler, cut_to_cut, pixels_to_cut
from nutclf.train.feature_store import FeatureStore
from nutclf.train.views import UNTOUCHED, Augmenter


class FrozenPart:
    """The frozen network of one study: pixels to any cut, each graph traced once.

    Args:
      backbone: its weights are read, never changed.
      augmentation, seed: of the study; they fix every view.
      deepest: the largest number of unfrozen layers. What enters them is computed from pixels, and
        the features of every later cut from that.
    """

    def __init__(self, backbone: Backbone, augmentation: Augmentation, seed: int, deepest: int):
        self.backbone, self.augmentation, self.seed = backbone, augmentation, seed
        self.trunk = cuts.trunk(backbone.model)
        self.base_cut = cuts.cut_for_depth(self.trunk, deepest)
        self._augmenter = Augmenter(augmentation, backbone.spec.image_size, seed)
        self._graphs: dict[tuple[int | None, int], Prefix] = {}

    def shape(self, cut: int) -> tuple[int, ...]:
        """Of the features of one image at `cut`."""
        return tuple(self.trunk.layers[cut].output.shape[1:])

    def from_pixels(
        self, cut: int, view: int, images: Split, rows: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Features at `cut` of view `view` of the images `rows`, a batch at a time."""
        prefix = self._graph(None, cut)
        for start in range(0, len(rows), BATCH_SIZE):
            batch = rows[start : start + BATCH_SIZE]
            keys = [images.keys[row] for row in batch]
            yield prefix(self._augmenter.view(images.pixels[batch], keys, view))

    def from_base(self, cut: int, base: np.ndarray) -> Iterator[np.ndarray]:
        """Features at `cut` from those at the base cut, in order, a batch at a time."""
        prefix = self._graph(self.base_cut, cut)
        for start in range(0, len(base), BATCH_SIZE):
            yield prefix(base[start : start + BATCH_SIZE])

    def _graph(self, start: int | None, cut: int) -> Prefix:
        if (start, cut) not in self._graphs:
            self._graphs[start, cut] = (
                pixels_to_cut(self.backbone.spec, self.trunk, cut)
                if start is None
                else cut_to_cut(self.trunk, start, cut)
            )
        return self._graphs[start, cut]

    def describes(self, cut: int) -> dict:
        """What the features at `cut` depend on, besides the images and the view."""
        return {
            "backbone": self.backbone.spec.name,
            "image_size": self.backbone.spec.image_size,
            "weights": self.backbone.digest,
            "cut": self.trunk.layers[cut].name,
            # Rounded to half precision in between, a derived entry is not bit for bit a direct one.
            "base_cut": self.trunk.layers[self.base_cut].name,
            "seed": self.seed,
            "augmentation": vars(self.augmentation),
            "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
            "compiler": compiler(),
        }


class StoredFeatures:
    """Features at one cut, kept as one memory-mapped array a view."""

    def __init__(self, part: FrozenPart, cut: int, images: Split, store: FeatureStore, dtype: str):
        self._part, self._cut, self._images = part, cut, images
        self._store, self._dtype = store, dtype
        self._open_views: dict[int, np.ndarray] = {}

    def batch(self, view: int, rows: np.ndarray) -> np.ndarray:
        """Features [len(rows), ...] of view `view` for the images `rows`."""
        return self._view(view)[rows].astype(np.float32, copy=False)

    @property
    def bytes_per_view(self) -> int:
        """Disk that one view takes."""
        one = int(np.prod(self._part.shape(self._cut))) * np.dtype(self._dtype).itemsize
        return one * len(self._images.keys)

    def prepare(self, view: int) -> None:
        """Makes the features of `view` now, if they are not there yet."""
        self._view(view)

    def _view(self, view: int) -> np.ndarray:
        if view not in self._open_views:
            self._open_views[view] = self._make(self._cut, view)
        return self._open_views[view]

    def _make(self, cut: int, view: int) -> np.ndarray:
        key = self._part.describes(cut) | {"view": view, "images": self._images_digest}
        shape = (len(self._images.keys), *self._part.shape(cut))
        # Evaluation reads the untouched view: it keeps full precision, so that the whole network
        # gives the same probabilities as its tail.
        dtype = "float32" if view == UNTOUCHED else self._dtype
        return self._store.get(key, shape, dtype, lambda out: self._fill(out, cut, view))

    def _fill(self, out: np.ndarray, cut: int, view: int) -> None:
        if cut == self._part.base_cut:
            every = np.arange(len(self._images.keys))
            batches = self._part.from_pixels(cut, view, self._images, every)
        else:
            batches = self._part.from_base(cut, self._make(self._part.base_cut, view))
        start = 0
        for batch in batches:
            out[start : start + len(batch)] = batch
            start += len(batch)

    @cached_property
    def _images_digest(self) -> str:
        return hashlib.sha256("\n".join(self._images.keys).encode()).hexdigest()


class StreamedFeatures:
    """The same features computed anew for each batch: slower, and no disk is needed."""

    def __init__(self, part: FrozenPart, cut: int, images: Split):
        self._part, self._cut, self._images = part, cut, images

    def prepare(self, view: int) -> None:
        """Nothing can be made ahead."""

    def batch(self, view: int, rows: np.ndarray) -> np.ndarray:
        """Features [len(rows), ...] of view `view` for the images `rows`, float32."""
        return np.concatenate(list(self._part.from_pixels(self._cut, view, self._images, rows)))


Features = StoredFeatures | StreamedFeatures
