"""One study's network and images: fits any recipe on any rows, and assembles the whole network."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np

from nutclf.config import COVERAGE, PLAIN, WHOLE, Ensemble, Recipe, StudyConfig
from nutclf.data.folder import Split
from nutclf.errors import UserError
from nutclf.evaluate.baselines import Probe, fit_probes
from nutclf.evaluate.ensembles import Answers
from nutclf.evaluate.familiarity import Familiarity, learn_familiarity
from nutclf.model import cuts, network
from nutclf.model.backbones import Backbone
from nutclf.process import has_gpu, n_threads
from nutclf.train.feature_store import FeatureStore
from nutclf.train.features import Features, FrozenPart
from nutclf.train.learner import History, Learner, OnEpoch

# Rounding in another order of operations moves a probability by some 1e-6, by 2e-4 where a linear
# model of 300 classes of six images has logits in the hundreds; a wrong layer by 0.1.
ASSEMBLY_TOLERANCE = 1e-3
PROBE_VIEWS = 6  # augmented views that a probe learns from, beside unmirrored test-time views
_WORTH_SAYING_S = 2.0  # features that take longer are reported; stored ones take none


@dataclass(frozen=True)
class FitResult:
    """What a fit gives; `held_out` are the training images that it did not learn from.

    Probabilities are float32 [V, n, C], under each of the study's V test-time views, of which the
    first is the untouched image.
    """

    recipe: Recipe
    seed: int
    history: History
    weights: Mapping[str, Sequence[np.ndarray]]  # of the tail's layers in the best epoch, by name
    valid: np.ndarray
    held_out: np.ndarray | None  # in the split's order; None where it learned from all
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

    @cached_property
    def _part_of_vectors(self) -> FrozenPart:
        return FrozenPart(self.backbone, self.config.augmentation, self.config.seed, deepest=0)

    @property
    def pool(self) -> int:
        """The cut that is the pooling: features there are vectors [N, C]."""
        return self._part.pool

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
        valid_labels = self.splits["valid"].labels
        one_hot = np.eye(len(self.classes), dtype=np.float32)[valid_labels]
        target = self.features("valid", learner.cut).all(WHOLE), one_hot
        featured, beats = time.perf_counter(), self.config.objective.beats
        history = learner.fit(at_cut, pooled, chosen, labels, target, n_views, beats, on_epoch)
        trained, held_out = time.perf_counter(), None
        if len(others := np.setdiff1d(every, chosen)):
            held_out = self._under_all_views(learner, "train", others)
        valid = self._under_all_views(learner, "valid", np.arange(len(valid_labels)))
        right = float(np.mean(valid[0].argmax(axis=1) == valid_labels))
        slack = 1e-6 if learner.precision == "float32" else 0.1  # an image may be near two classes
        if not abs(right - history.best["valid_accuracy"]) <= slack:
            raise RuntimeError(
                f"the kept weights have {right:.6f} of the valid images right, the fit reported "
                f"{history.best['valid_accuracy']:.6f}: images and labels were paired otherwise"
            )
        head = sum(tail.get_layer(name).count_params() for name in network.HEAD_LAYERS)
        facts = {
            "trainable_parameters": network.n_trainable(tail),
            "total_parameters": self.backbone.model.count_params() + head,
            "weights": self.backbone.origin,
            "weights_digest": self.backbone.digest,
            "threads": n_threads(),  # changes results by rounding: sums come in another order
            "precision": learner.precision,
        }
        return FitResult(
            recipe,
            seed,
            history,
            {layer.name: layer.get_weights() for layer in tail.layers if layer.weights},
            valid,
            held_out,
            facts,
            featured - started,
            trained - featured,
        )

    def predict(self, result: FitResult, split: str) -> np.ndarray:
        """Probabilities of the images of a split under each test-time view, float32 [V, n, C]."""
        learner = self._learner_of(result.recipe, result.seed)
        for name, weights in result.weights.items():
            learner.tail.get_layer(name).set_weights(weights)
        return self._under_all_views(learner, split, np.arange(len(self.splits[split].labels)))

    def fit_probes(self, folds: np.ndarray | None) -> list[Probe]:
        """The study's probes on frozen features; `folds` as `baselines.fit_probes` takes them."""
        asked, valid = (self.asked_of_probes(split) for split in ("train", "valid"))
        learned, labels = self.learned_by_probes(), self.splits["train"].labels
        return fit_probes(self.config.probes, learned, labels, folds, asked, valid)

    def learned_by_probes(self) -> list[np.ndarray]:
        """What probes read of the training images, [N, F] a view: fixed, and augmented ones."""
        fixed = [view for view in self.config.test_views if not view.mirrored]
        drawn = range(min(PROBE_VIEWS, self.config.views))
        features = self.features("train", self._part.levels)
        return [features.all(view) for view in (*fixed, *drawn)]

    def asked_of_probes(self, split: str) -> list[np.ndarray]:
        """What probes read of a split, [n, F] a test-time view."""
        features = self.features(split, self._part.levels)
        return [features.all(view) for view in self.config.test_views]

    def assemble(
        self,
        answering: FitResult | Probe,
        ensemble: Ensemble = PLAIN,
        probe: Probe | None = None,
    ) -> tuple[keras.Model, np.ndarray]:
        """The whole network, raw pixels in, and its probabilities on the valid split.

        `probe` is the ensemble's. The next call may refill the network. Raises `RuntimeError`: fit
        and probe had other probabilities.
        """
        views, linear = self.config.test_views, probe or answering
        tail = {} if isinstance(answering, Probe) else answering.weights
        dense = (linear.kernel, linear.bias) if isinstance(linear, Probe) else ()
        dropout, cut = 0.5, 0
        if tail:
            trunk, dropout = self._part.trunk, answering.recipe.dropout_rate
            cut = cuts.cut_for_depth(trunk, answering.recipe.n_unfrozen)
        whole = self._deployable.fill(tail, dropout, ensemble, dense, cut)
        y_prob = network.predict(whole, self.splits["valid"].pixels)
        said = {probe.name: probe.valid} if probe else {}
        gap = np.abs(y_prob - Answers(views, answering.valid, said).under(ensemble)).max()
        if not gap <= ASSEMBLY_TOLERANCE:
            raise RuntimeError(
                f"the assembled network differs from the trained tail by {gap:.2g} in probability"
            )
        return whole, y_prob

    def familiarity(
        self, answering: FitResult | Probe, ensemble: Ensemble, folds: np.ndarray
    ) -> Familiarity | None:
        """What the network that `assemble` makes knows of the training images, `folds` [N] theirs.

        Of the frozen features that it computes anyway: pooled where a probe needs those, else at
        the cut. None where nothing is frozen.
        """
        cut = self.pool
        if not isinstance(answering, Probe) and not ensemble.probe:
            cut = cuts.cut_for_depth(self._part.trunk, answering.recipe.n_unfrozen)
        if cut == 0:
            return None
        at_cut, rows = self.features("train", cut), np.arange(len(self.splits["train"].labels))
        seen = [
            network.in_batches(lambda some: _pooled(at_cut.batch(view, some)), rows, 32)  # noqa: B023
            for view in ensemble.views
        ]
        train = self.splits["train"]
        return learn_familiarity(np.mean(seen, axis=0), train.labels, train.paths, folds, COVERAGE)

    def features(self, split: str, cut: int) -> Features:
        """Features of a split at a cut: stored where they fit the budget, else streamed."""
        if (split, cut) not in self._features:
            self._features[split, cut] = self._open_features(self.splits[split], cut)
        return self._features[split, cut]

    def _open_features(self, images: Split, cut: int) -> Features:
        config, store = self.config, self._store
        # Vectors fit where the maps that a tail trains on do not: then they are kept alone.
        parts = [self._part, *([self._part_of_vectors] if cut >= self.pool else [])]
        for part in parts:
            kept = Features(part, cut, images, store, config.feature_dtype)
            needed = kept.size(config.views, len(config.test_views))
            if store is None or store.fits(needed):
                return kept
        name = self._part.trunk.layers[min(cut, self.pool)].name
        self._say(
            f"features at {name} would take {needed / 1e9:.1f} GB, "
            "more than the store may hold: training from pixels instead, slower"
        )
        return Features(self._part, cut, images, None, config.feature_dtype)

    def _learner_of(self, recipe: Recipe, seed: int) -> Learner:
        """The last learner is kept: the folds of a recipe share its traced graph."""
        if self._learner is None or self._learner[0] != (recipe, seed):
            keras.utils.set_random_seed(seed)
            trunk, n_unfrozen, n_classes = self._part.trunk, recipe.n_unfrozen, len(self.classes)
            cut, dropout = cuts.cut_for_depth(trunk, n_unfrozen), recipe.dropout_rate
            tail = network.build_tail(trunk, cut, n_unfrozen, n_classes, dropout, seed)
            precision = self.config.precision or ("mixed_float16" if has_gpu() else "float32")
            self._learner = (recipe, seed), Learner(tail, cut, recipe, seed, precision)
        return self._learner[1]

    def _under_all_views(self, learner: Learner, split: str, rows: np.ndarray) -> np.ndarray:
        features = self.features(split, learner.cut)
        seen = (features.batch(view, rows) for view in self.config.test_views)
        return np.stack([network.predict(learner.tail, each, 32) for each in seen])


def _pooled(features: np.ndarray) -> np.ndarray:
    """Features [B, ..., C] as vectors [B, C]."""
    return features.mean(axis=tuple(range(1, features.ndim - 1)))


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
