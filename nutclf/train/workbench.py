"""What the trials of one study share: images, features, the frozen network; and one trial's fit."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from nutclf.config import Recipe, StudyConfig
from nutclf.data.folder import Split
from nutclf.errors import UserError
from nutclf.model import cuts, network
from nutclf.model.backbones import Backbone
from nutclf.train.feature_store import FeatureStore
from nutclf.train.features import Features, FrozenPart, StoredFeatures, StreamedFeatures
from nutclf.train.learner import Examples, History, Learner, OnEpoch
from nutclf.train.views import UNTOUCHED

# Rounding in another order of operations moves a probability by some 1e-6; a wrong layer by 0.1.
ASSEMBLY_TOLERANCE = 1e-4
_WORTH_SAYING_S = 2.0  # features that take longer are reported; stored ones take none


@dataclass(frozen=True)
class Fitted:
    """What a fit went through.

    Attributes:
      history: its epochs.
      seconds_features, seconds_train: spent making features, and training on them.
    """

    history: History
    seconds_features: float
    seconds_train: float


class Workbench:
    """One study's network and images; it fits any recipe of the study's space on any rows.

    Args:
      config: of the study.
      backbone: built, with weights.
      classes: names in the order of the labels.
      splits: "train" and "valid", at the backbone's image size.
      store: of features; None trains from pixels, without any disk.
      say: takes a line of progress for a person.
    """

    def __init__(
        self,
        config: StudyConfig,
        backbone: Backbone,
        classes: Sequence[str],
        splits: dict[str, Split],
        store: FeatureStore | None,
        say: Callable[[str], None] = lambda line: None,
    ):
        self.config, self.backbone, self.classes, self.splits = config, backbone, classes, splits
        self._store, self._say = store, say
        depths = (*config.space.n_unfrozen, config.baseline.n_unfrozen)
        _check_depths(backbone, depths)
        self._part = FrozenPart(backbone, config.augmentation, config.seed, max(depths))
        self._deployable = network.Deployable(backbone, len(classes))
        self._features: dict[tuple[str, int], Features] = {}

    def learner(self, recipe: Recipe, seed: int | None = None) -> Learner:
        """A recipe made trainable.

        Args:
          recipe: how to train.
          seed: of initial weights, dropout and order; None is the study's.
        """
        seed = self.config.seed if seed is None else seed
        keras.utils.set_random_seed(seed)
        cut = cuts.cut_for_depth(self._part.trunk, recipe.n_unfrozen)
        tail = network.build_tail(
            self._part.trunk,
            cut,
            recipe.n_unfrozen,
            len(self.classes),
            recipe.dropout_rate,
            seed,
            recipe.batch_norm,
        )
        return Learner(tail, cut, recipe, seed)

    def fit(
        self,
        learner: Learner,
        rows: np.ndarray | None = None,
        on_epoch: OnEpoch = lambda epoch, figures: None,
    ) -> Fitted:
        """Trains a learner from its initial state, watched on the valid split.

        Args:
          learner: from this bench.
          rows: of the train split to learn from; None is all.
          on_epoch: see `Learner.fit`.
        """
        started = time.perf_counter()
        train, valid = self.splits["train"], self.splits["valid"]
        at_cut, warmup = self.features("train", learner.cut), learner.recipe.warmup_epochs
        pooled = self.features("train", len(self._part.trunk.layers) - 1) if warmup else None
        for epoch in range(learner.n_epochs):
            self._prepare(pooled if epoch < warmup else at_cut, epoch % self.config.views)
        chosen = np.arange(len(train.labels)) if rows is None else rows
        one_hot = np.eye(len(self.classes), dtype=np.float32)
        watched = self._untouched("valid", learner.cut), one_hot[valid.labels]
        featured = time.perf_counter()
        history = learner.fit(
            Examples(at_cut, pooled, chosen, train.labels),
            watched,
            n_views=self.config.views,
            better=self.config.objective.beats,
            on_epoch=on_epoch,
        )
        return Fitted(history, featured - started, time.perf_counter() - featured)

    def predict(self, learner: Learner, split: str, rows: np.ndarray | None = None) -> np.ndarray:
        """Probabilities [n, n_classes] of the untouched images of a split, float32."""
        return network.predict(learner.tail, self._untouched(split, learner.cut, rows))

    def assemble(self, learner: Learner) -> tuple[keras.Model, np.ndarray]:
        """The whole network, raw pixels in, and its probabilities on the valid split.

        The network is valid until the next call, which refills it.

        Raises:
          RuntimeError: its probabilities are not the tail's.
        """
        whole = self._deployable.fill(learner.tail)
        y_prob = network.predict_pixels(whole, self.splits["valid"].pixels)
        gap = np.abs(y_prob - self.predict(learner, "valid")).max()
        if not gap <= ASSEMBLY_TOLERANCE:
            raise RuntimeError(
                f"the assembled network differs from the trained tail by {gap:.2g} in probability"
            )
        return whole, y_prob

    def features(self, split: str, cut: int) -> Features:
        """Features of a split at a cut: stored where they fit the budget, else streamed."""
        if (split, cut) not in self._features:
            self._features[split, cut] = self._make_features(self.splits[split], cut)
        return self._features[split, cut]

    def _make_features(self, images: Split, cut: int) -> Features:
        if self._store is None:
            return StreamedFeatures(self._part, cut, images)
        stored = StoredFeatures(self._part, cut, images, self._store, self.config.feature_dtype)
        needed = stored.bytes_per_view * (self.config.views + 1)
        if self._store.fits(needed):
            return stored
        self._say(
            f"features at {self._part.trunk.layers[cut].name} would take {needed / 1e9:.1f} GB, "
            "more than the store may hold: training from pixels instead, slower"
        )
        return StreamedFeatures(self._part, cut, images)

    def _prepare(self, features: Features, view: int) -> None:
        """Makes a view now, if it is not there yet, and says so where a person would wait."""
        began = time.perf_counter()
        features.prepare(view)
        if (seconds := time.perf_counter() - began) > _WORTH_SAYING_S:
            self._say(f"features of view {view + 1} of {self.config.views}: {seconds:.0f} s")

    def _untouched(self, split: str, cut: int, rows: np.ndarray | None = None) -> np.ndarray:
        rows = np.arange(len(self.splits[split].labels)) if rows is None else rows
        return self.features(split, cut).batch(UNTOUCHED, rows)


def _check_depths(backbone: Backbone, depths: Sequence[int]) -> None:
    """Refuses depths that unfreeze the same weights as another, or more than there are."""
    distinct = cuts.distinct_depths(backbone.model)
    if wrong := sorted(set(depths) - set(distinct)):
        raise UserError(
            f"n_unfrozen {wrong} of {backbone.spec.name}: those layers carry no weights, or are "
            f"not there; depths that differ in what trains are {distinct[:12]} ... {distinct[-1]}."
        )
