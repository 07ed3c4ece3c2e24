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
from nutclf.train.learner import History, Learner, OnEpoch
from nutclf.train.views import UNTOUCHED

# Rounding in another order of operations moves a probability by some 1e-6; a wrong layer by 0.1.
ASSEMBLY_TOLERANCE = 1e-4
_WORTH_SAYING_S = 2.0  # features that take longer are reported; stored ones take none


@dataclass(frozen=True)
class FitResult:
    """What a fit gives; `held_out` are the training images that it did not learn from."""

    recipe: Recipe
    seed: int
    history: History
    weights: Mapping[str, Sequence[np.ndarray]]  # of the tail's layers in the best epoch, by name
    valid: np.ndarray  # probabilities, float32 [n_valid, C]
    held_out: np.ndarray | None  # probabilities [n, C] in the split's order; None where it took all
    facts: Mapping[str, object]  # parameters for a run: sizes, weights, processors
    seconds_features: float
    seconds_train: float


class Workbench:
    """One study's network and images.

    Classes are in the order of the labels, splits are "train" and "valid" at the backbone's image
    size, and without a store of features training is from pixels. `say` takes lines for a person.
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
        deepest = max(check_depths(config, backbone))
        self._part = FrozenPart(backbone, config.augmentation, config.seed, deepest)
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

        The seed is of initial weights, dropout and the order of images; None is the study's. `rows`
        of the train split are learned from, int [n]; None is all.
        """
        started = time.perf_counter()
        seed = self.config.seed if seed is None else seed
        learner, labels = self._learner_of(recipe, seed), self.splits["train"].labels
        tail, n_views, warmup = learner.tail, self.config.views, recipe.warmup_epochs
        at_cut = self.features("train", learner.cut)
        pooled = self.features("train", self.pool) if warmup else None
        for epoch in range(learner.n_epochs):
            view, began = epoch % n_views, time.perf_counter()
            (pooled if epoch < warmup else at_cut).prepare(view)
            if (seconds := time.perf_counter() - began) > _WORTH_SAYING_S:
                self._say(f"features of view {view + 1} of {n_views}: {seconds:.0f} s")
        every = np.arange(len(labels))
        chosen = every if rows is None else rows
        one_hot = np.eye(len(self.classes), dtype=np.float32)[self.splits["valid"].labels]
        valid = self._untouched("valid", learner.cut)
        featured = time.perf_counter()
        beats, target = self.config.objective.beats, (valid, one_hot)
        history = learner.fit(at_cut, pooled, chosen, labels, target, n_views, beats, on_epoch)
        trained, held_out = time.perf_counter(), None
        if len(others := np.setdiff1d(every, chosen)):
            held_out = network.predict(tail, self._untouched("train", learner.cut, others))
        head = sum(tail.get_layer(name).count_params() for name in network.HEAD_LAYERS)
        facts = {
            "trainable_parameters": network.parameter_counts(tail)["trainable"],
            "total_parameters": self.backbone.model.count_params() + head,
            "weights": self.backbone.origin,
            "weights_digest": self.backbone.digest,
            "threads": n_threads(),  # changes results by rounding: sums come in another order
        }
        return FitResult(
            recipe,
            seed,
            history,
            {layer.name: layer.get_weights() for layer in tail.layers if layer.weights},
            network.predict(tail, valid),
            held_out,
            facts,
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

        The next call refills the network. Raises `RuntimeError`: the fit had other probabilities.
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
            self._features[split, cut] = self._open_features(self.splits[split], cut)
        return self._features[split, cut]

    def _open_features(self, images: Split, cut: int) -> Features:
        if self._store is not None:
            dtype, n_views = self.config.feature_dtype, self.config.views
            stored = StoredFeatures(self._part, cut, images, self._store, dtype)
            if self._store.fits(needed := stored.bytes_per_view * (n_views + 1)):
                return stored
            self._say(
                f"features at {self._part.trunk.layers[cut].name} would take {needed / 1e9:.1f} "
                "GB, more than the store may hold: training from pixels instead, slower"
            )
        return StreamedFeatures(self._part, cut, images)

    def _learner_of(self, recipe: Recipe, seed: int) -> Learner:
        """The last learner is kept: the folds of a recipe share its traced graph."""
        if self._learner is None or self._learner[0] != (recipe, seed):
            keras.utils.set_random_seed(seed)
            trunk, n_unfrozen, n_classes = self._part.trunk, recipe.n_unfrozen, len(self.classes)
            cut = cuts.cut_for_depth(trunk, n_unfrozen)
            dropout, norm = recipe.dropout_rate, recipe.batch_norm
            tail = network.build_tail(trunk, cut, n_unfrozen, n_classes, dropout, seed, norm)
            self._learner = (recipe, seed), Learner(tail, cut, recipe, seed)
        return self._learner[1]

    def _untouched(self, split: str, cut: int, rows: np.ndarray | None = None) -> np.ndarray:
        rows = np.arange(len(self.splits[split].labels)) if rows is None else rows
        return self.features(split, cut).batch(UNTOUCHED, rows)


def check_depths(config: StudyConfig, backbone: Backbone) -> list[int]:
    """The depths of a study; `UserError` where one adds no weights, or more layers than exist."""
    depths = sorted({*config.space.n_unfrozen, config.baseline.n_unfrozen})
    distinct = cuts.distinct_depths(backbone.model)
    if wrong := sorted(set(depths) - set(distinct)):
        raise UserError(
            f"n_unfrozen {wrong} of {backbone.spec.name}: those layers carry no weights, or are "
            f"not there; depths that differ in what trains are {distinct[:12]} ... {distinct[-1]}."
        )
    return depths
