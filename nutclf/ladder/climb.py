"""The published ladder, rung by rung: one walk is one run of MLflow, each rung a child of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np

from nutclf.data.folder import Split
from nutclf.data.source import DataSource
from nutclf.evaluate.baselines import BASELINES, judge
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.predictions import prediction_table
from nutclf.ladder import puzzle
from nutclf.ladder.rungs import (
    NAMED_AS,
    RUNGS,
    Figure,
    Row,
    Rung,
    aligned,
    as_markdown,
    check_parameters,
    ladder_config,
    notes_on,
)
from nutclf.model.backbones import Backbone, BackboneSpec
from nutclf.model.imagenet import NoClassifier, class_names, classify, load_classifier
from nutclf.model.network import parameter_counts
from nutclf.search.claims import WORKER
from nutclf.search.places import Places
from nutclf.search.records import record_fit, record_settings, record_sizes
from nutclf.search.scoring import Watch, full_score
from nutclf.search.session import DRAWN_BACKBONES, Say, data_record, labelled, make_folds
from nutclf.track.evaluation import metrics_of, write_evaluation
from nutclf.track.liveness import hold
from nutclf.track.runs import DataRecord, Run, source_tags, trial_run, write_json
from nutclf.track.store import Store
from nutclf.train.feature_store import FeatureStore
from nutclf.train.learner import History, Learner
from nutclf.train.views import UNTOUCHED
from nutclf.train.workbench import Workbench


def names_by_class(
    y_true: np.ndarray, named: np.ndarray, classes: Sequence[str], names: Sequence[str]
) -> dict[str, list[tuple[str, int]]]:
    """For each class, how often its images were given which name, the most frequent first.

    Args:
      y_true: class ids 0..C-1, int [N].
      named: positions in `names` that the other classifier chose, int [N].
      classes: C names of ours.
      names: the other classifier's; two classes of the same name count as one.

    Returns:
      A list of (name, images) a class, empty where the class has no image; equal counts in
      alphabetical order. The counts of a class add up to its images.

    Raises:
      ValueError: the two sequences are not of one length.
    """
    y_true, named = np.asarray(y_true), np.asarray(named)
    if y_true.shape != named.shape:
        raise ValueError(f"{y_true.shape} true classes and {named.shape} names do not pair")
    counted = {}
    for label, name in enumerate(classes):
        counts = Counter(names[i] for i in named[y_true == label])
        counted[name] = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return counted


def ladder_run(store: Store, experiment_id: str, name: str, tags: Mapping[str, str]) -> Run:
    """A new run, RUNNING; unlike a study's, it is never found again: each walk has its own.

    Args:
      store: of the records.
      experiment_id: the ladder's experiment, not a study's.
      name: for people.
      tags: what the run says of its data.
    """
    client = store.client()
    own = {"study_name": name, "kind": "ladder"} | source_tags() | dict(tags)
    return Run(client, client.create_run(experiment_id, run_name=name, tags=own).info.run_id)


NUMBER, TITLE = 1, "as is: the untouched ImageNet classifier"
_SHOWN = 3  # names a class in the table; the JSON has them all

Names = dict[str, list[tuple[str, int]]]
"""For each class, the names its images were given and how often."""


def name_images(
    run: Run,
    spec: BackboneSpec,
    classifier: keras.Model,
    images: Split,
    classes: Sequence[str],
) -> Names:
    """Has the classifier name every image, and records the names in `run`.

    They become `imagenet_names.json` and `.md`, and a tag with the most frequent one a class.
    """
    named = classify(spec, classifier, images.pixels)
    names = names_by_class(images.labels, named, classes, class_names())
    run.params({"backbone": spec.name, "split": "train", "n_images": len(images.labels)})
    with run.artifacts() as folder:
        counts = {name: dict(found) for name, found in names.items()}
        write_json(folder / "imagenet_names.json", counts)
        (folder / "imagenet_names.md").write_text(names_table(names) + "\n", encoding="utf-8")
    often = [f"{name}: {found[0][0]}" for name, found in names.items() if found]
    run.tags({"named_most_often": "; ".join(often)})
    return names


def names_table(names: Names) -> str:
    """A Markdown table: each class, its images, and the names it was given most often."""
    cells = [["Class", "Images", "Named most often by the untouched ImageNet classifier"]]
    for name, found in names.items():
        often = ", ".join(f"{given} {count}" for given, count in found[:_SHOWN])
        cells.append([name, str(sum(count for _, count in found)), often])
    return aligned(cells)


def rows_of_names(names: Names) -> list[Row]:
    """The published misnamings and how often they happen here; then all classes together."""
    rows = []
    for name, published in NAMED_AS.items():
        if found := names.get(name):
            times, n = dict(found).get(published, 0), sum(count for _, count in found)
            here = f"{times / n:.3f}; most often {found[0][0]}"
            rows.append(
                Row(NUMBER, TITLE, f"{name} called {published}", "1 image", here, Rate(times, n))
            )
    acorns = sum(dict(found).get("acorn", 0) for found in names.values())
    n = sum(count for found in names.values() for _, count in found)
    figure = "called acorn, ImageNet's one nut"
    return [*rows, Row(NUMBER, TITLE, figure, "", f"{acorns / n:.3f}", Rate(acorns, n))]


def fit_rung(run: Run, rung: Rung, bench: Workbench, data: DataRecord) -> tuple[Learner, list[Row]]:
    """Trains a rung, records it in `run`, and compares it with what was published.

    Args:
      run: of the rung.
      rung: what to train.
      bench: with the rung's augmentation.
      data: what the run says of its data.

    Returns:
      The learner, with the weights of its best epoch, and the rung's lines of the table.

    Raises:
      RuntimeError: other parameters train than in the publication.
    """
    config = bench.config
    record_settings(run, config, rung.recipe, data, config.seed)
    learner = bench.learner(rung.recipe)
    counted = parameter_counts(learner.tail)["trainable"]
    check_parameters(config.backbone, len(bench.classes), rung.recipe.n_unfrozen, counted)
    record_sizes(run, bench, learner)
    watch = Watch(epoch=lambda epoch, figures: run.metrics(figures, step=epoch))
    score = full_score(run, bench, learner, config.objective, None, watch)
    record_fit(run, bench, data, learner, score)
    once = _of_train(bench, learner)
    run.metrics(once)
    run.metrics({"time_features_s": score.spent.features, "time_train_s": score.spent.training})
    n = {split: len(images.labels) for split, images in bench.splits.items()}
    once |= {"trainable_parameters": counted}
    return learner, [_row(rung, figure, score.history, once, n) for figure in rung.figures]


def _of_train(bench: Workbench, learner: Learner) -> dict[str, float]:
    """Precision and recall on the untouched training images, without dropout, of the kept epoch."""
    train = bench.splits["train"]
    y_prob = bench.predict(learner, "train")
    table = prediction_table(train.paths, train.labels, y_prob, bench.classes)
    metrics = metrics_of("train", table, bench.classes)
    return {name: metrics[name] for name in ("train_macro_precision", "train_macro_recall")}


def _row(
    rung: Rung,
    figure: Figure,
    history: History,
    once: Mapping[str, float],
    n: Mapping[str, int],
) -> Row:
    """One figure of a rung: as many of its last epochs as were published, or the last one."""
    label, last = figure.label, len(history.epochs)
    if figure.metric in once:
        values = [once[figure.metric]]
    else:
        first = last - max(1, len(figure.published))
        values = [epoch[figure.metric] for epoch in history.epochs[first:]]
        label += f", epoch {last}" if len(values) == 1 else f", epochs {first + 1}-{last}"
    here = ", ".join(f"{v:,}" if isinstance(v, int) else f"{v:.3f}" for v in values)
    rate = Rate(round(values[-1] * n[figure.of]), n[figure.of]) if figure.of else None
    return Row(rung.number, rung.title, label, ", ".join(figure.published), here, rate)


FIRST_NUMBER = 8
NO_FOLDS = (
    "The ladder's baselines are cross-validated, and these data cannot be: {}. Add images to that "
    "class, or leave it out of every split."
)


@dataclass(frozen=True)
class Vectors:
    """What the baselines learn from: pooled features of untouched images, float32 [N, C]."""

    train: np.ndarray
    valid: np.ndarray


def pooled_vectors(bench: Workbench, pool: int) -> Vectors:
    """Features of both splits at the pooling.

    Args:
      bench: with the images.
      pool: the cut that is the pooling, where a tail with nothing unfrozen begins.
    """
    splits = {
        split: bench.features(split, pool).batch(UNTOUCHED, np.arange(len(images.labels)))
        for split, images in bench.splits.items()
    }
    return Vectors(splits["train"], splits["valid"])


def run_baseline(
    run: Run, number: int, name: str, bench: Workbench, vectors: Vectors, folds: np.ndarray
) -> list[Row]:
    """Fits a baseline, records it in `run`, and gives its lines of the table.

    Args:
      run: of the rung.
      number: of the rung.
      name: a key of `BASELINES`.
      bench: with the images.
      vectors: from `pooled_vectors`.
      folds: from `nutclf.search.session.make_folds`.
    """
    train, valid, classes = bench.splits["train"], bench.splits["valid"], bench.classes
    seed = bench.config.seed
    run.params({"model": name, "seed": seed, "backbone": bench.config.backbone})
    run.params({"features": "pooled", "n_features": vectors.train.shape[1]})
    learned_from = vectors.train, train.labels
    judged = judge(BASELINES[name](seed), learned_from, folds, vectors.valid, len(classes))
    rows = []
    for split, images, y_prob, of_folds in (
        ("valid", valid, judged.valid, None),
        ("cv", train, judged.held_out, folds),
    ):
        table = prediction_table(images.paths, images.labels, y_prob, classes, of_folds)
        right = int(np.sum(y_prob.argmax(axis=1) == images.labels))
        rate = Rate(right, len(images.labels))
        write_evaluation(run, split, table, classes, rate.share)
        # `write_evaluation` leaves the valid accuracy to the epochs; here there are none.
        run.metrics({f"{split}_accuracy": rate.share})
        label = "valid accuracy" if split == "valid" else f"{folds.max() + 1}-fold accuracy"
        title = f"{name} on frozen features"
        rows.append(Row(number, title, label, "", f"{rate.share:.3f}", rate))
    return rows


EXPERIMENTS = {"photographs": "nutclf-ladder", "drawn": "nutclf-ladder-drawn"}
"""By kind of data: drawn results never mix with real ones, nor rungs with trials."""


def backbone_for_data(name: str, kind: str) -> str:
    """The network that walks the ladder on a kind of data: a small one on drawings."""
    return DRAWN_BACKBONES.get(name, name) if kind == "drawn" else name


class Ladder:
    """One walk; all input is checked before anything is recorded.

    Args:
      backbone: with weights.
      source: of the images.
      places: where to read and write.
      say: takes lines for a person.
    """

    def __init__(self, backbone: Backbone, source: DataSource, places: Places, say: Say):
        self._backbone, self._source, self._places, self._say = backbone, source, places, say
        size = backbone.spec.image_size
        self._splits = {
            split: labelled(source.data, split, size, say) for split in ("train", "valid")
        }
        config = ladder_config(backbone.spec.name, augmented=True)
        self._folds = make_folds(config, self._splits["train"], NO_FOLDS)
        self._classifier = self._find_classifier()
        self._data = data_record(source)
        self._store = places.store.prepare()

    def climb(self) -> str:
        """Walks all rungs and records the table in a run of its own.

        Returns:
          The table as Markdown.

        Raises:
          Exception: whatever ended a rung, after its run and the ladder's were closed as FAILED.
        """
        experiment = self._store.experiment_id(EXPERIMENTS[self._source.kind])
        name = f"ladder-{self._backbone.spec.name}"
        with hold(self._store.folder) as worker:
            self._tags = self._data.tags | {WORKER: worker}
            parent = ladder_run(self._store, experiment, name, self._tags)
            with _closed(parent):
                return self._walk(parent)

    def _walk(self, parent: Run) -> str:
        parent.params({"backbone": self._backbone.spec.name, "weights": self._backbone.origin})
        parent.data(self._data)
        rows, names = self._as_is(parent)
        plain, augmented = self._bench(augmented=False), self._bench(augmented=True)
        for rung in RUNGS:
            with self._rung(parent, rung.number, rung.title) as run:
                bench = augmented if rung.augmented else plain
                learner, found = fit_rung(run, rung, bench, self._data)
                rows += found
            if rung.recipe.n_unfrozen == 0:
                pool = learner.cut
        with self._rung(parent, puzzle.NUMBER, puzzle.TITLE) as run:
            rows += self._puzzle(run, augmented, learner)
        vectors = pooled_vectors(augmented, pool)
        for number, baseline in enumerate(BASELINES, start=FIRST_NUMBER):
            with self._rung(parent, number, baseline) as run:
                run.data(self._data)
                rows += run_baseline(run, number, baseline, augmented, vectors, self._folds)
        return self._record(parent, rows, names)

    def _as_is(self, parent: Run) -> tuple[list[Row], str]:
        """Rung 1's rows and its table of names; both empty where that network is not to be had."""
        if self._classifier is None:
            return [], ""
        classes, train = self._source.data.classes, self._splits["train"]
        with self._rung(parent, NUMBER, TITLE) as run:
            run.data(self._data)
            spec = self._backbone.spec
            names = name_images(run, spec, self._classifier, train, classes)
        return rows_of_names(names), names_table(names)

    def _find_classifier(self) -> keras.Model | None:
        try:
            return load_classifier(self._backbone.spec)
        except NoClassifier as missing:
            self._say(f"rung {NUMBER} left out: {missing}")
            return None

    def _bench(self, augmented: bool) -> Workbench:
        features = FeatureStore(self._places.features, self._places.feature_budget_bytes, self._say)
        config = ladder_config(self._backbone.spec.name, augmented)
        classes = self._source.data.classes
        return Workbench(config, self._backbone, classes, self._splits, features, self._say)

    def _puzzle(self, run: Run, bench: Workbench, learner: Learner) -> list[Row]:
        folder, size = self._source.data, self._backbone.spec.image_size
        run.data(self._data)
        return puzzle.solve_puzzle(
            run, bench, learner, lambda: labelled(folder, "test", size, self._say)
        )

    @contextmanager
    def _rung(self, parent: Run, number: int, title: str) -> Iterator[Run]:
        self._say(f"rung {number}: {title}")
        run = trial_run(parent, f"{number} · {title}", number, self._tags, kind="rung")
        with _closed(run):
            yield run

    def _record(self, parent: Run, rows: list[Row], names: str) -> str:
        notes = notes_on(self._backbone.spec.name, self._data.kind)
        table = "\n\n".join(part for part in (as_markdown(rows), notes, names) if part)
        with parent.artifacts() as folder:
            (folder / "ladder.md").write_text(table + "\n", encoding="utf-8")
            write_json(folder / "ladder.json", [row.record() for row in rows])
        return table


@contextmanager
def _closed(run: Run) -> Iterator[None]:
    """Ends a run as COMPLETE, or as FAIL whatever ended the work, an interrupt too."""
    try:
        yield
    except BaseException as error:
        known = isinstance(error, Exception)
        run.end("FAIL", f"{type(error).__name__}: {error}" if known else "interrupted")
        raise
    run.end("COMPLETE")
