"""Climbs the published ladder: one MLflow run per walk, and one child run per rung."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from nutclf.data.folder import Split, read_split
from nutclf.data.source import DataSource
from nutclf.evaluate.baselines import BASELINES, judge
from nutclf.evaluate.folds import make_folds
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.predictions import prediction_table
from nutclf.ladder import puzzle, rungs
from nutclf.ladder.rungs import RUNGS, Row, Rung, check_parameters, ladder_config
from nutclf.model import backbones
from nutclf.model.backbones import Backbone, BackboneSpec, NoClassifier, load_classifier
from nutclf.model.prefix import BATCH_SIZE, pixels_to_cut
from nutclf.search.driver import Say, closed
from nutclf.track.evaluation import metrics_of, write_evaluation
from nutclf.track.runs import DataRecord, Run, source_tags, trial_run, write_json
from nutclf.track.store import Store
from nutclf.track.trial_log import log_best, log_epochs, log_model_of, log_settings
from nutclf.train.feature_store import FeatureStore
from nutclf.train.jobs import Assembled
from nutclf.train.views import UNTOUCHED
from nutclf.train.workbench import FitResult, Workbench

EXPERIMENTS = {"photographs": "nutclf-ladder", "drawn": "nutclf-ladder-drawn"}
"""By kind of data: drawn results never mix with real ones, nor rungs with trials."""

AS_IS = 1, "as is: the untouched ImageNet classifier"
NAMED_AS = {"coconut": "face powder", "pistachios": "cucumber"}
"""Rung 1: what the untouched ImageNet classifier said of a nut, one image each, as published."""

_NO_FOLDS = (
    "The ladder's baselines are cross-validated, and these data cannot be: {}. Add images to that "
    "class, or leave it out of every split."
)
_KEPT_EPOCH = {
    "train_macro_precision": "train precision, kept epoch",
    "train_macro_recall": "train recall, kept epoch",
}

Names = dict[str, dict[str, int]]
"""By class, how often its images were given which name, the most frequent first."""


def climb(
    backbone: Backbone, source: DataSource, store: Store, features: FeatureStore, say: Say
) -> str:
    """Walks all rungs and records the table in a run of its own; the table as Markdown.

    All input is checked before anything is recorded. Only rung 7 opens the test split. What ends
    a rung is raised again, after its run and the ladder's were closed as FAILED.
    """
    data, spec, record = source.data, backbone.spec, DataRecord.of(source)
    configs = [ladder_config(spec.name, source.kind, augmented) for augmented in (False, True)]

    def read(split: str) -> Split:
        return read_split(data, split, spec.image_size, say=say)

    splits, classifier = {split: read(split) for split in ("train", "valid")}, None
    folds = make_folds(splits["train"], configs[0].n_folds, configs[0].seed, _NO_FOLDS)
    try:
        if source.kind == "drawn":
            raise NoClassifier("it names photographs, and these images are drawn.")
        classifier = load_classifier(spec)
    except NoClassifier as missing:
        say(f"rung {AS_IS[0]} left out: {missing}")
    plain, augmented = (
        Workbench(config, backbone, data.classes, splits, features, say) for config in configs
    )
    client = store.prepare().client()
    name, experiment = f"ladder-{spec.name}", store.experiment_id(EXPERIMENTS[source.kind])
    tags = {"study_name": name, "kind": "ladder"} | source_tags() | record.tags
    parent = Run(client, client.create_run(experiment, run_name=name, tags=tags).info.run_id)

    @contextmanager
    def rung(number: int, title: str) -> Iterator[Run]:
        say(f"rung {number}: {title}")
        run = trial_run(parent, f"{number} · {title}", number, record.tags, kind="rung")
        with closed(run):
            run.data(record)
            yield run

    rows, names = [], ""
    with closed(parent):
        parent.params({"backbone": spec.name, "weights": backbone.origin})
        parent.data(record)
        if classifier is not None:
            with rung(*AS_IS) as run:
                found = name_images(run, spec, classifier, splits["train"], data.classes)
                rows, names = rows_of_names(found), names_table(found)
        for step in RUNGS:
            with rung(step.number, step.title) as run:
                bench = augmented if step.augmented else plain
                result, found = fit_rung(run, step, bench, record)
                rows += found
        with rung(puzzle.NUMBER, puzzle.TITLE) as run:
            rows += puzzle.solve_puzzle(run, bench, result, lambda: read("test"))
        for number, baseline in enumerate(BASELINES, start=puzzle.NUMBER + 1):
            with rung(number, baseline) as run:
                rows += run_baseline(run, number, baseline, plain, folds)
        parts = rungs.as_markdown(rows), rungs.notes_on(spec.name, source.kind), names
        table = "\n\n".join(part for part in parts if part)
        with parent.artifacts() as folder:
            (folder / "ladder.md").write_text(table + "\n", encoding="utf-8")
            write_json(folder / "ladder.json", [row.record() for row in rows])
    return table


def name_images(
    run: Run, spec: BackboneSpec, classifier: keras.Model, images: Split, classes: Sequence[str]
) -> Names:
    """Has the ImageNet classifier name every image, and records the names in `run`."""
    ids = classify(spec, classifier, images.pixels)
    names = count_names(images.labels, np.array(class_names())[ids], classes)
    run.params({"backbone": spec.name, "split": "train", "n_images": len(images.labels)})
    with run.artifacts() as folder:
        write_json(folder / "imagenet_names.json", names)
        (folder / "imagenet_names.md").write_text(names_table(names) + "\n", encoding="utf-8")
    often = [f"{name}: {next(iter(found))}" for name, found in names.items() if found]
    run.tags({"named_most_often": "; ".join(often)})
    return names


def classify(spec: BackboneSpec, classifier: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """The most probable ImageNet class of each image, int64 [N], of uint8 RGB [N, S, S, 3]."""
    run = pixels_to_cut(spec, classifier, len(classifier.layers) - 1)
    starts = range(0, len(pixels), BATCH_SIZE)
    return np.concatenate([run(pixels[i : i + BATCH_SIZE]).argmax(axis=1) for i in starts])


def class_names() -> list[str]:
    """The 1000 names of ILSVRC 2012, by index; "crane" and "maillot" each name two classes."""
    file = Path(backbones.__file__).with_name("imagenet_classes.txt")
    return file.read_text(encoding="utf-8").splitlines()


def count_names(labels: np.ndarray, given: np.ndarray, classes: Sequence[str]) -> Names:
    """Counts the names [N] given to images with class ids [N]; ties in alphabetical order."""
    counts = (Counter(sorted(given[labels == i].tolist())) for i in range(len(classes)))
    return {name: dict(count.most_common()) for name, count in zip(classes, counts, strict=True)}


def names_table(names: Names) -> str:
    """Each class, its images, and the three names it was given most often, in Markdown."""
    cells = [["Class", "Images", "Named most often by the untouched ImageNet classifier"]]
    for name, found in names.items():
        often = ", ".join(f"{given} {count}" for given, count in list(found.items())[:3])
        cells.append([name, str(sum(found.values())), often])
    return rungs.aligned(cells)


def rows_of_names(names: Names) -> list[Row]:
    """The published misnamings and how often they happen here; then all classes together."""
    rows = []
    for name, published in NAMED_AS.items():
        if found := names.get(name):
            rate = Rate(found.get(published, 0), sum(found.values()))
            here = f"{rate.share:.3f}; most often {next(iter(found))}"
            rows.append(Row(*AS_IS, f"{name} called {published}", "1 image", here, rate))
    every = sum(map(Counter, names.values()), Counter())
    rate = Rate(every["acorn"], every.total())
    figure = "called acorn, ImageNet's one nut"
    return [*rows, Row(*AS_IS, figure, "", f"{rate.share:.3f}", rate)]


def fit_rung(
    run: Run, rung: Rung, bench: Workbench, data: DataRecord
) -> tuple[FitResult, list[Row]]:
    """Trains a rung and records it in `run` as a trial is; its fit, and its lines of the table."""
    config, classes, train = bench.config, bench.classes, bench.splits["train"]
    log_settings(run, config, rung.recipe, data, config.seed)
    result = bench.fit(rung.recipe, on_epoch=lambda epoch, seen: log_epochs(run, {epoch: seen}))
    run.params(result.facts)
    counted = result.facts["trainable_parameters"]
    check_parameters(config.backbone, len(classes), rung.recipe.n_unfrozen, counted)
    log_best(run, result.history)
    _log_model(run, bench, result, data)
    # The kept epoch on the untouched training images, without dropout.
    table = prediction_table(train.paths, train.labels, bench.predict(result, "train"), classes)
    metrics = metrics_of("train", table, classes)
    once = {name: metrics[name] for name in _KEPT_EPOCH}
    spent = {"time_features_s": result.seconds_features, "time_train_s": result.seconds_train}
    run.metrics(once | spent)
    once |= {"trainable_parameters": counted}
    n = {split: len(images.labels) for split, images in bench.splits.items()}
    return result, [_row(rung, name, result.history.epochs, once, n) for name in rung.published]


def _log_model(run: Run, bench: Workbench, result: FitResult, data: DataRecord) -> None:
    whole, y_prob = bench.assemble(result)
    with tempfile.TemporaryDirectory() as folder:
        whole.save(file := Path(folder) / "model.keras")
        assembled = Assembled(file.read_bytes(), y_prob)
    valid = bench.splits["valid"]
    table = prediction_table(valid.paths, valid.labels, y_prob, bench.classes)
    metadata = {
        "classes": list(bench.classes),
        "image_size": bench.backbone.spec.image_size,
        "pixels": "RGB, 0 to 255, uint8 or float, [B, H, W, 3]",
        "backbone": bench.config.backbone,
        "data_fingerprint": data.fingerprint,
        "data_source": data.kind,
    }
    log_model_of(run, result, assembled, table, None, metadata)


def _row(
    rung: Rung,
    metric: str,
    epochs: Sequence[Mapping[str, float]],
    once: Mapping[str, float],
    n: Mapping[str, int],
) -> Row:
    """A figure of the fit as a whole; or of as many last epochs as were published, or the last."""
    label, published, rate = metric.replace("_", " "), rung.published[metric], None
    if metric in once:
        label, value = _KEPT_EPOCH.get(metric, label), once[metric]
        here = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    else:
        last, shown = len(epochs), len(published.split(", "))
        label += f", epoch {last}" if shown == 1 else f", epochs {last - shown + 1}-{last}"
        values = [epoch[metric] for epoch in epochs[-shown:]]
        here = ", ".join(f"{value:.3f}" for value in values)
        split, _, what = metric.partition("_")
        if what == "accuracy":
            rate = Rate(round(values[-1] * n[split]), n[split])
    return Row(rung.number, rung.title, label, published, here, rate)


def run_baseline(
    run: Run, number: int, name: str, bench: Workbench, folds: np.ndarray
) -> list[Row]:
    """Fits one of `BASELINES` on pooled features of untouched images, and records it in `run`."""
    train, valid = bench.splits["train"], bench.splits["valid"]
    classes, seed = bench.classes, bench.config.seed
    vectors, of_valid = (
        bench.features(split, bench.pool).batch(UNTOUCHED, np.arange(len(images.labels)))
        for split, images in (("train", train), ("valid", valid))
    )
    run.params({"model": name, "seed": seed, "backbone": bench.config.backbone})
    run.params({"features": "pooled", "n_features": vectors.shape[1]})
    learned_from = vectors, train.labels
    judged = judge(BASELINES[name](seed), learned_from, folds, of_valid, len(classes))
    rows = []
    for split, label, images, y_prob, fold in (
        ("valid", "valid accuracy", valid, judged.valid, None),
        ("cv", f"{folds.max() + 1}-fold accuracy", train, judged.held_out, folds),
    ):
        rate = Rate(int((y_prob.argmax(axis=1) == images.labels).sum()), len(images.labels))
        table = prediction_table(images.paths, images.labels, y_prob, classes, fold)
        write_evaluation(run, split, table, classes, rate.share)
        # `write_evaluation` leaves the valid accuracy to the epochs; here there are none.
        run.metrics({f"{split}_accuracy": rate.share})
        title = f"{name} on frozen features"
        rows.append(Row(number, title, label, "", f"{rate.share:.3f}", rate))
    return rows
