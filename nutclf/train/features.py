"""What a tail trains on: the frozen prefix applied to every view, from the store or on the fly."""

import hashlib
from dataclasses import asdict
from functools import cache, partial

import keras
import numpy as np
import tensorflow as tf

from nutclf.config import Augmentation, View
from nutclf.data.folder import Split
from nutclf.model import cuts
from nutclf.model.backbones import Backbone
from nutclf.model.network import in_batches
from nutclf.model.prefix import BATCH_SIZE, compiler, cut_to_cut, pixels_to_cut
from nutclf.model.tta import look
from nutclf.train.feature_store import FeatureStore
from nutclf.train.views import Augmenter

AnyView = int | View
"""An augmented view by its number, 0 and up, or a fixed one."""


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

    def from_pixels(self, cut: int, view: AnyView, images: Split, rows: np.ndarray) -> np.ndarray:
        """Features at `cut` of view `view` of `rows`, a batch of the images."""
        pixels = images.pixels[rows]
        if isinstance(view, View):
            seen = np.asarray(look(tf.cast(pixels, tf.float32), view))
        else:
            seen = self._augmenter.view(pixels, [images.keys[row] for row in rows], view)
        return self._pixels_to(cut)(seen)

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

    @property
    def bytes_per_view(self) -> int:
        one = int(np.prod(self._part.shape(self._cut))) * np.dtype(self._dtype).itemsize
        return one * len(self._images.keys)

    def prepare(self, view: AnyView) -> None:
        """Makes the features of `view` now, if they are to be kept and are not there yet."""
        if self._store and view not in self._views:
            self._views[view] = self._make(self._cut, view)

    def batch(self, view: AnyView, rows: np.ndarray) -> np.ndarray:
        """Features [len(rows), ...] of view `view` for the images `rows`, float32."""
        if self._store is None:
            of_batch = partial(self._part.from_pixels, self._cut, view, self._images)
            return in_batches(of_batch, rows, BATCH_SIZE)
        self.prepare(view)
        return self._views[view][rows].astype(np.float32, copy=False)

    def all(self, view: AnyView) -> np.ndarray:
        """Features of all images, float32 [N, ...]."""
        return self.batch(view, np.arange(len(self._images.keys)))

    def _make(self, cut: int, view: AnyView) -> np.ndarray:
        part, fixed = self._part, isinstance(view, View)

        def fill(out: np.ndarray) -> None:
            base = None if cut == part.base_cut else self._make(part.base_cut, view)
            for start in range(0, len(out), BATCH_SIZE):
                rows = np.arange(start, min(start + BATCH_SIZE, len(out)))
                if base is None:
                    out[rows] = part.from_pixels(cut, view, self._images, rows)
                else:
                    out[rows] = part.base_to(cut)(base[rows])

        named = asdict(view) if fixed else view
        key = part.describes(cut) | {"view": named, "images": self._digest}
        shape = (len(self._images.keys), *part.shape(cut))
        # Images are judged by fixed views: those keep full precision, so that the whole network
        # gives the same probabilities as its tail.
        return self._store.get(key, shape, "float32" if fixed else self._dtype, fill)
