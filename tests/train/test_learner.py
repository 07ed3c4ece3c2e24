import itertools
import math
from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pytest

from nutclf.config import OBJECTIVES, PRECISIONS, WHOLE, Augmentation, Objective, Recipe
from nutclf.model import cuts
from nutclf.model.network import add_head, build_tail, predict
from nutclf.train.feature_store import FeatureStore
from nutclf.train.features import Features, FrozenPart
from nutclf.train.learner import History, Learner, NonFiniteLoss, rate_at

N, WIDTH, N_CLASSES = 10, 8, 4
LABELS = np.arange(N) % N_CLASSES
RECIPE = Recipe(n_unfrozen=0, epochs=3, batch_size=4, lr_schedule="constant", learning_rate=1e-2)
WARMED = replace(RECIPE, warmup_epochs=2)
BEATS = Objective("best_valid_loss", "minimize").beats


class Vectors:
    """Features without a network: view v is the vectors plus v/10. Notes what it is asked for."""

    def __init__(self, seed: int = 0):
        self.vectors = np.random.default_rng(seed).normal(size=(N, WIDTH)).astype(np.float32)
        self.asked: list[tuple[int, list[int]]] = []

    def batch(self, view: int, rows: np.ndarray) -> np.ndarray:
        self.asked.append((view, rows.tolist()))
        return self.vectors[rows] + np.float32(view / 10)


@pytest.fixture
def vectors() -> Vectors:
    return Vectors()


@pytest.fixture(scope="module")
def learner_of():
    """Learners by recipe, shared: each takes seconds to trace, and starts afresh by itself."""
    return cache(lambda recipe: Learner(small_tail(), 0, recipe, seed=0))


def small_tail() -> keras.Model:
    """The head behind one more layer that trains, as a backbone's last layer would."""
    features = keras.Input((WIDTH,), name="features")
    deep = keras.layers.Dense(
        WIDTH, kernel_initializer=keras.initializers.GlorotUniform(9), name="deep"
    )(features)
    return keras.Model(features, add_head(deep, N_CLASSES, 0.5, 0), name="tail")


def valid_of(vectors: np.ndarray, labels: np.ndarray = LABELS) -> tuple[np.ndarray, np.ndarray]:
    return vectors, np.eye(N_CLASSES, dtype=np.float32)[labels]


def play(learner, features, *, rows=None, valid=None, n_views=2, better=BEATS, **hooks) -> History:
    """One fit; the valid split is another draw of vectors with the same labels."""
    return learner.fit(
        features,
        features,
        np.arange(N) if rows is None else rows,
        LABELS,
        valid or valid_of(Vectors(1).vectors),
        n_views=n_views,
        better=better,
        **hooks,
    )


def cross_entropy(y_prob: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(y_prob[np.arange(len(labels)), labels]).mean())


def series(history: History, name: str) -> list[float]:
    return [epoch[name] for epoch in history.epochs]


# What an epoch sees


@pytest.mark.parametrize("recipe", [RECIPE, WARMED], ids=["cold", "warmed up"])
def test_each_epoch_sees_each_row_once_in_the_view_of_its_number(learner_of, vectors, recipe):
    play(learner_of(recipe), vectors, n_views=4)
    epochs = recipe.warmup_epochs + recipe.epochs
    # And nothing is asked of a further epoch: nobody has prepared its view.
    assert len(vectors.asked) == 3 * epochs
    orders = []
    for epoch in range(epochs):
        views, batches = zip(*vectors.asked[3 * epoch : 3 * epoch + 3], strict=True)
        assert views == (epoch % 4,) * 3
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert sorted(itertools.chain(*batches)) == list(range(N))
        orders.append(batches)
    assert len(set(map(str, orders))) == epochs  # another order each time


def test_only_the_given_rows_are_learnt_from_and_a_large_batch_is_one_step(learner_of, vectors):
    rows = np.array([1, 5, 7])
    play(learner_of(RECIPE), vectors, rows=rows)
    assert [batch for _, batch in vectors.asked] == [rows.tolist()] * RECIPE.epochs


# What is recorded


def test_the_weights_of_the_best_epoch_are_kept_and_give_its_figures(learner_of, vectors):
    valid = valid_of(Vectors(1).vectors)
    verdicts = iter([True, False])  # asked of epochs 2 and 3
    learner = learner_of(RECIPE)
    history = play(learner, vectors, valid=valid, better=lambda a, b: next(verdicts))
    assert history.best_epoch == 2
    assert history.best is history.epochs[1]
    y_prob = predict(learner.tail, valid[0])
    assert history.best["valid_loss"] == pytest.approx(cross_entropy(y_prob, LABELS), abs=1e-6)
    assert history.best["valid_accuracy"] == (y_prob.argmax(1) == LABELS).mean(), "counted"
    assert series(history, "learning_rate") == [0.01] * 3, "not 0.009999999776482582"
    first, best, last = series(history, "valid_loss")
    assert min(abs(first - best), abs(last - best)) > 1e-4


def test_an_objective_keeps_the_epoch_with_its_best_value(learner_of, vectors):
    history = play(learner_of(replace(RECIPE, epochs=6, learning_rate=0.05)), vectors)
    losses = series(history, "valid_loss")
    assert history.best_epoch == 1 + int(np.argmin(losses))
    assert history.best_epoch < 6  # ten random vectors are learnt by heart: validation gets worse


def test_a_cross_validated_objective_keeps_the_last_epoch(learner_of, vectors):
    recipe = replace(RECIPE, epochs=6, learning_rate=0.05)
    history = play(learner_of(recipe), vectors, better=OBJECTIVES["cv"].beats)
    losses = series(history, "valid_loss")
    assert losses[-1] > min(losses)
    assert history.best_epoch == 6


def test_the_recorded_rate_is_the_one_the_epoch_was_trained_with(learner_of, vectors):
    # Too small a rate to gain anything: halved after every epoch that follows the first.
    recipe = replace(RECIPE, lr_schedule="plateau", epochs=4, learning_rate=1e-9)
    rates = series(play(learner_of(recipe), vectors), "learning_rate")
    np.testing.assert_allclose(rates, [1e-9, 1e-9, 5e-10, 2.5e-10], rtol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("step", [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ("cosine", [(1 + math.cos(math.pi * epoch / 6)) / 2 for epoch in range(6)]),
    ],
)
def test_a_schedule_fixed_in_advance_gives_the_rate_of_each_epoch(schedule, rates):
    recipe = replace(RECIPE, lr_schedule=schedule, epochs=6, learning_rate=1.0)
    assert [rate_at(recipe, epoch) for epoch in range(6)] == pytest.approx(rates)


def test_on_epoch_hears_of_each_epoch_and_can_end_the_fit(learner_of, vectors):
    heard = []

    def stop_in_the_second(epoch, figures):
        heard.append((epoch, sorted(figures)))
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(learner_of(RECIPE), vectors, on_epoch=stop_in_the_second)
    names = ["learning_rate", "train_accuracy", "train_loss", "valid_accuracy", "valid_loss"]
    assert heard == [(1, names), (2, names)]


@pytest.mark.parametrize("recipe", [RECIPE, WARMED], ids=["cold", "warmed up"])
def test_two_learners_made_alike_give_the_same_history(learner_of, vectors, recipe):
    again = Learner(small_tail(), 0, recipe, seed=0)
    assert play(again, vectors).epochs == play(learner_of(recipe), vectors).epochs


def test_another_seed_is_another_order(learner_of, vectors):
    play(learner_of(RECIPE), vectors)
    play(Learner(small_tail(), 0, RECIPE, seed=1), vectors)
    orders = [rows for _, rows in vectors.asked]
    assert orders[: len(orders) // 2] != orders[len(orders) // 2 :]


@pytest.mark.parametrize(
    "recipe",
    [RECIPE, WARMED, replace(RECIPE, lr_schedule="plateau", learning_rate=1e-9)],
    ids=["cold", "warmed up", "lowered rate"],
)
def test_a_second_fit_of_one_learner_starts_from_the_same_state(learner_of, vectors, recipe):
    # Folds share a learner: a trace of one fold in the next would leak what was held out.
    first, second = (play(learner_of(recipe), vectors).epochs for _ in range(2))
    assert first == second


@pytest.mark.parametrize("where", ["train", "valid", "rate"])
def test_a_loss_that_is_no_number_ends_the_fit(learner_of, vectors, where):
    valid, recipe = valid_of(Vectors(1).vectors), RECIPE
    if where == "train":
        vectors.vectors[3, 3] = np.inf  # nan would not do: ReLU makes it 0
    elif where == "valid":
        valid[0][3, 3] = np.inf
    else:
        recipe = replace(RECIPE, learning_rate=1e38)
    with pytest.raises(NonFiniteLoss):
        play(learner_of(recipe), vectors, valid=valid)


def test_a_learner_that_was_destroyed_starts_afresh_all_the_same(learner_of, vectors):
    learner, ruined = learner_of(RECIPE), Vectors()
    before = play(learner, vectors).epochs
    ruined.vectors[3, 3] = np.inf
    with pytest.raises(NonFiniteLoss):
        play(learner, ruined)
    assert play(learner, vectors).epochs == before


# What trains


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path: np.array(weight) for weight in model.weights}


def moved(before: dict[str, np.ndarray], tail: keras.Model, by: float = 0) -> set[str]:
    """Layers of which a weight has changed by more than `by`."""
    now = weights_of(tail)
    return {n.split("/")[0] for n, old in before.items() if np.abs(now[n] - old).max() > by}


def test_warm_up_trains_the_head_alone(vectors):
    tail = small_tail()
    before = weights_of(tail)
    # After the warm-up, steps of 1e-12 move nothing that one could see.
    play(Learner(tail, 0, replace(WARMED, epochs=1, learning_rate=1e-12), seed=0), vectors)
    assert moved(before, tail, by=1e-9) == {"hidden", "probabilities"}


def test_after_the_warm_up_all_of_the_tail_trains(learner_of, vectors):
    before = weights_of(small_tail())
    learner = learner_of(WARMED)
    play(learner, vectors)
    assert moved(before, learner.tail) == {"deep", "hidden", "probabilities"}


class Untouched(Vectors):
    """Features of a network, the same in every view."""

    def __init__(self, features: np.ndarray):
        self.vectors, self.asked = features, []

    def batch(self, view: int, rows: np.ndarray) -> np.ndarray:
        return self.vectors[rows]


def fit_eight(part, few_images, precision: str):
    """The last 4 layers fitted on 8 images, frozen layers in the tail: before, tail, history."""
    streamed = Features(part, part.base_cut, few_images, None, "float32")
    features = streamed.batch(WHOLE, np.arange(8))
    tail = build_tail(part.trunk, part.base_cut, 4, N_CLASSES, 0.2, 0)
    before = weights_of(tail)
    recipe = Recipe(epochs=20, batch_size=4, lr_schedule="constant", learning_rate=1e-3)
    untouched = Untouched(features)
    history = Learner(tail, part.base_cut, recipe, 0, precision).fit(
        untouched,
        untouched,
        np.arange(8),
        few_images.labels,
        valid_of(features, few_images.labels),
        n_views=1,
        better=BEATS,
    )
    return before, tail, history


@pytest.fixture(scope="module")
def fitted(part, few_images):
    return fit_eight(part, few_images, "float32")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_eight_images_are_learnt_by_heart(fitted, part, few_images, precision):
    alike = precision == "float32"
    _, _, history = fitted if alike else fit_eight(part, few_images, precision)
    assert history.epochs[0]["valid_accuracy"] < 1
    assert history.best["valid_accuracy"] == 1.0
    assert history.best["valid_loss"] < 0.1


def batch_norms(tail: keras.Model) -> list[keras.Layer]:
    return [x for x in tail.layers if isinstance(x, keras.layers.BatchNormalization)]


def test_no_statistics_of_a_batch_normalization_move(fitted):
    before, tail, _ = fitted
    norms = batch_norms(tail)
    assert len(norms) == 7  # 3 in each of the blocks 15 and 16, and the last
    for norm in norms:
        for statistic in (norm.moving_mean, norm.moving_variance):
            np.testing.assert_array_equal(np.array(statistic), before[statistic.path])


def test_scales_and_shifts_train_where_unfrozen_and_only_there(fitted):
    before, tail, _ = fitted
    for norm in batch_norms(tail):
        for weight in (norm.gamma, norm.beta):
            same = np.array_equal(np.array(weight), before[weight.path])
            assert same == (norm.name not in {"block_16_project_BN", "Conv_1_bn"}), weight.path


def test_only_what_is_unfrozen_has_moved(fitted):
    before, tail, _ = fitted
    unfrozen = {"block_16_project_BN", "Conv_1", "Conv_1_bn", "hidden", "probabilities"}
    assert moved(before, tail) == unfrozen


def assert_cached_equals_uncached(part, images, few_images, store):
    """Stored features at a late cut, against pixels and the whole network as the tail."""
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=1e-3)
    histories, answers = [], []
    for cached in (True, False):
        cut = cuts.cut_for_depth(part.trunk, 4) if cached else 0
        train, valid = (
            Features(part, cut, split, store, "float32")
            if cached
            else Features(part, cut, split, None, "float32")
            for split in (images, few_images)
        )
        watched = valid.batch(WHOLE, np.arange(8))
        tail = build_tail(part.trunk, cut, 4, N_CLASSES, 0.5, seed=0)
        history = Learner(tail, cut, recipe, seed=0).fit(
            train,
            train,
            np.arange(20),
            images.labels,
            valid_of(watched, few_images.labels),
            n_views=2,
            better=BEATS,
        )
        histories.append(history)
        answers.append(predict(tail, watched))
    for name in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(*(series(h, name) for h in histories), atol=1e-4)
        assert len(set(series(histories[0], name))) == 2
    assert histories[0].best_epoch == histories[1].best_epoch
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)
    assert answers[0].argmax(1).tolist() == answers[1].argmax(1).tolist()


def test_a_cached_fit_equals_an_uncached_one(tiny_backbone, draw_images, tmp_path):
    side = tiny_backbone.spec.image_size
    images, few_images = draw_images(20, side, 0), draw_images(8, side, 1)
    part = FrozenPart(tiny_backbone, Augmentation(), seed=0, deepest=4)
    store = FeatureStore(tmp_path, 1 << 30)
    assert_cached_equals_uncached(part, images, few_images, store)


@pytest.mark.slow
def test_a_cached_fit_of_mobilenet_equals_an_uncached_one(part, images, few_images, tmp_path):
    store = FeatureStore(tmp_path, 1 << 30)
    assert_cached_equals_uncached(part, images, few_images, store)
