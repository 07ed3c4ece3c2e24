"""What a tail trains on: the frozen prefix applied to every view, from the store or on the fly."""

import hashlib
from functools import cache, partial

import keras
import numpy as np
import tensorflow as tf

from nutclf.config import Augmentation
from nutclf.data.folder import Split
from nutclf.model import cuts
from nutclf.model.backbones import Backbone
from nutclf.model.network import in_batches
from nutclf.model.prefix import BATCH_SIZE, compiler, cut_to_cut, pixels_to_cut
from nutclf.train.feature_store import FeatureStore
from nutclf.train.views import UNTOUCHED, Augmenter


class FrozenPart:
    """The frozen network of one study: pixels to any cut, each graph traced once.

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
        self._augmenter = Augmenter(augmentation, backbone.spec.image_size, seed)
        self._pixels_to = cache(partial(pixels_to_cut, backbone.spec, self.trunk))
        self.base_to = cache(partial(cut_to_cut, self.trunk, self.base_cut))

    def shape(self, cut: int) -> tuple[int, ...]:
        """Of the features of one image at `cut`."""
        return tuple(self.trunk.layers[cut].output.shape[1:])

    def from_pixels(self, cut: int, view: int, images: Split, rows: np.ndarray) -> np.ndarray:
        """Features at `cut` of view `view` of `rows`, a batch of the images."""
        keys = [images.keys[row] for row in rows]
        return self._pixels_to(cut)(self._augmenter.view(images.pixels[rows], keys, view))

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
        self._digest = hashlib.sha256("\n".join(images.keys).encode()).hexdigest()
        self._views: dict[int, np.ndarray] = {}

    @property
    def bytes_per_view(self) -> int:
        one = int(np.prod(self._part.shape(self._cut))) * np.dtype(self._dtype).itemsize
        return one * len(self._images.keys)

    def prepare(self, view: int) -> None:
        """Makes the features of `view` now, if they are not there yet."""
        if view not in self._views:
            self._views[view] = self._make(self._cut, view)

    def batch(self, view: int, rows: np.ndarray) -> np.ndarray:
        """Features [len(rows), ...] of view `view` for the images `rows`, float32."""
        self.prepare(view)
        return self._views[view][rows].astype(np.float32, copy=False)

    def _make(self, cut: int, view: int) -> np.ndarray:
        part = self._part

        def fill(out: np.ndarray) -> None:
            base = None if cut == part.base_cut else self._make(part.base_cut, view)
            for start in range(0, len(out), BATCH_SIZE):
                rows = np.arange(start, min(start + BATCH_SIZE, len(out)))
                if base is None:
                    out[rows] = part.from_pixels(cut, view, self._images, rows)
                else:
                    out[rows] = part.base_to(cut)(base[rows])

        key = part.describes(cut) | {"view": view, "images": self._digest}
        shape = (len(self._images.keys), *part.shape(cut))
        # Evaluation reads the untouched view: it keeps full precision, so that the whole network
        # gives the same probabilities as its tail.
        return self._store.get(key, shape, "float32" if view == UNTOUCHED else self._dtype, fill)


class StreamedFeatures:
    """The same features computed anew for each batch: slower, and no disk is needed."""

    def __init__(self, part: FrozenPart, cut: int, images: Split):
        self._part, self._cut, self._images = part, cut, images

    def prepare(self, view: int) -> None:
        """Nothing can be made ahead."""

    def batch(self, view: int, rows: np.ndarray) -> np.ndarray:
        of_batch = partial(self._part.from_pixels, self._cut, view, self._images)
        return in_batches(of_batch, rows, BATCH_SIZE)


Features = StoredFeatures | StreamedFeatures
