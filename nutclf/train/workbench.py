"""One study's network and images: fits any recipe on any rows, and assembles the whole network."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np

from nutclf.config import Recipe, StudyConfig
from nutclf.data.folder import Split
from nutclf.errors import UserError
from nutclf.model import cuts, network
from nutclf.model.backbones import Backbone
from nutclf.process import n_threads
from nutclf.train.feature_store import FeatureStore
from nutclf.train.features import Features, FrozenPart, StoredFeatures, StreamedFeatures
from nutclf.train.learner import Examples, History, Learner, OnEpoch
from nutclf.train.views import UNTOUCHED

# Rounding in another order of operations moves a probability by some 1e-6; a wrong layer by 0.1.
ASSEMBLY_TOLERANCE = 1e-4
_WORTH_SAYING_S = 2.0  # features that take longer are reported; stored ones take none

TailWeights = Mapping[str, Sequence[np.ndarray]]
"""Weights of the layers of a tail, by layer name."""


@dataclass(frozen=True)
class FitResult:
    """What a fit gives.

    Attributes:
      recipe, seed: what was fitted.
      history: its epochs.
      weights: of the tail in its best epoch.
      valid: probabilities of the valid split, float32 [n_valid, C].
      held_out: probabilities of the training images it did not learn from, in the order of the
        split, float32 [n, C]; None where it learned from all.
      facts: parameters for a run: sizes, weights, processors.
      seconds_features, seconds_train: spent making features, and training on them.
    """

    recipe: Recipe
    seed: int
    history: History
    weights: TailWeights
    valid: np.ndarray
    held_out: np.ndarray | None
    facts: Mapping[str, object]
    seconds_features: float
    seconds_train: float


class Workbench:
    """One study's network and images.

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
        depths = check_depths(config, backbone)
        self._part = FrozenPart(backbone, config.augmentation, config.seed, max(depths))
        self._features: dict[tuple[str, int], Features] = {}
        self._learner: tuple[tuple[Recipe, int], Learner] | None = None

    @cached_property
    def _deployable(self) -> network.Deployable:
        return network.Deployable(self.backbone, len(self.classes))

    @property
    def pool(self) -> int:
        """The cut that is the pooling: features there are vectors [N, C]."""
        return len(self._part.trunk.layers) - 1

    def fit(
        self,
        recipe: Recipe,
        seed: int | None = None,
        rows: np.ndarray | None = None,
        on_epoch: OnEpoch = lambda epoch, figures: None,
    ) -> FitResult:
        """Trains a recipe from its initial state, evaluated on the valid split each epoch.

        Args:
          recipe: how to train.
          seed: of initial weights, dropout and the order of images; None is the study's.
          rows: of the train split to learn from, int [n]; None is all.
          on_epoch: see `nutclf.train.learner.OnEpoch`.
        """
        started = time.perf_counter()
        seed = self.config.seed if seed is None else seed
        learner, train = self._learner_of(recipe, seed), self.splits["train"]
        at_cut, warmup = self.features("train", learner.cut), recipe.warmup_epochs
        pooled = self.features("train", self.pool) if warmup else None
        for epoch in range(learner.n_epochs):
            self._prepare(pooled if epoch < warmup else at_cut, epoch % self.config.views)
        every = np.arange(len(train.labels))
        chosen = every if rows is None else rows
        one_hot = np.eye(len(self.classes), dtype=np.float32)[self.splits["valid"].labels]
        valid = self._untouched("valid", learner.cut), one_hot
        featured = time.perf_counter()
        history = learner.fit(
            Examples(at_cut, pooled, chosen, train.labels),
            valid,
            n_views=self.config.views,
            better=self.config.objective.beats,
            on_epoch=on_epoch,
        )
        trained, others = time.perf_counter(), np.setdiff1d(every, chosen)
        held_out = self._untouched("train", learner.cut, others) if len(others) else None
        return FitResult(
            recipe,
            seed,
            history,
            {layer.name: layer.get_weights() for layer in learner.tail.layers if layer.weights},
            network.predict(learner.tail, valid[0]),
            None if held_out is None else network.predict(learner.tail, held_out),
            self._facts(learner.tail),
            featured - started,
            trained - featured,
        )

    def predict(self, result: FitResult, split: str) -> np.ndarray:
        """Probabilities [n, n_classes] of the untouched images of a split, float32."""
        learner = self._learner_of(result.recipe, result.seed)
        for name, weights in result.weights.items():
            learner.tail.get_layer(name).set_weights(weights)
        return network.predict(learner.tail, self._untouched(split, learner.cut))

    def assemble(self, result: FitResult) -> tuple[keras.Model, np.ndarray]:
        """The whole network, raw pixels in, and its probabilities on the valid split.

        The network is valid until the next call, which refills it.

        Raises:
          RuntimeError: its probabilities are not those of the fit.
        """
        whole = self._deployable.fill(result.weights, result.recipe.dropout_rate)
        y_prob = network.predict_pixels(whole, self.splits["valid"].pixels)
        gap = np.abs(y_prob - result.valid).max()
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

    def _learner_of(self, recipe: Recipe, seed: int) -> Learner:
        """The last learner is kept: the folds of a recipe share its traced graph."""
        if self._learner is None or self._learner[0] != (recipe, seed):
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
            self._learner = (recipe, seed), Learner(tail, cut, recipe, seed)
        return self._learner[1]

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

    def _facts(self, tail: keras.Model) -> dict[str, object]:
        """The number of threads changes results by rounding: sums are taken in another order."""
        head = sum(tail.get_layer(name).count_params() for name in network.HEAD_LAYERS)
        return {
            "trainable_parameters": network.parameter_counts(tail)["trainable"],
            "total_parameters": self.backbone.model.count_params() + head,
            "weights": self.backbone.origin,
            "weights_digest": self.backbone.digest,
            "threads": n_threads(),
        }


def check_depths(config: StudyConfig, backbone: Backbone) -> list[int]:
    """The depths of a study, after each was found to unfreeze other weights than the others.

    Raises:
      UserError: a depth unfreezes the same weights as another, or more layers than there are.
    """
    depths = sorted({*config.space.n_unfrozen, config.baseline.n_unfrozen})
    distinct = cuts.distinct_depths(backbone.model)
    if wrong := sorted(set(depths) - set(distinct)):
        raise UserError(
            f"n_unfrozen {wrong} of {backbone.spec.name}: those layers carry no weights, or are "
            f"not there; depths that differ in what trains are {distinct[:12]} ... {distinct[-1]}."
        )
    return depths
