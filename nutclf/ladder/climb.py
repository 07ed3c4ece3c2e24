"""The published ladder, and a walk up it: one MLflow run, and one child run per rung."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.resources import files

import keras
import numpy as np
from sklearn.metrics import confusion_matrix

from nutclf.config import (
    OBJECTIVES,
    WHOLE,
    Augmentation,
    Ensemble,
    Recipe,
    SearchSpace,
    StudyConfig,
    View,
)
from nutclf.data.folder import Split, read_split
from nutclf.data.source import DataSource
from nutclf.evaluate.baselines import BASELINES, judge
from nutclf.evaluate.ensembles import Answers
from nutclf.evaluate.folds import make_folds
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.metrics import confusion_record
from nutclf.evaluate.predictions import prediction_table
from nutclf.ladder import puzzle
from nutclf.model.backbones import Backbone, BackboneSpec, NoWeights, load_classifier
from nutclf.model.network import in_batches, predict
from nutclf.model.prefix import batch_size, pixels_to_cut
from nutclf.search.driver import DRAWN_SIZE, Say, closed
from nutclf.track.evaluation import FOLDER, metrics_of, write_evaluation
from nutclf.track.runs import DataRecord, Run, source_tags, trial_run, write_json
from nutclf.track.store import Store
from nutclf.track.trial_log import (
    log_best,
    log_curves,
    log_epochs,
    log_model_of,
    log_settings,
)
from nutclf.train.feature_store import FeatureStore
from nutclf.train.jobs import assembled
from nutclf.train.workbench import FitResult, Workbench

EXPERIMENTS = {"photographs": "nutclf-ladder", "drawn": "nutclf-ladder-drawn"}
"""By kind of data: drawn results never mix with real ones, nor rungs with trials."""
SEED, LEARNING_RATE = 0, 1e-3
"""The publication names no rate. Keras' default for Adam gives its rung 2: train accuracy 0.32,
0.64, 0.72 here; with 3e-4 it would be 0.19, 0.43, 0.57."""
PUBLISHED_BACKBONE = "mobilenetv2"
PUBLISHED_PARAMETERS = {0: 330_506, 4: 743_306}
"""Trainable parameters by unfrozen layers, of that backbone with ten classes."""
NO_AUGMENTATION = Augmentation(rotation=0, resize=1, zoom=0, horizontal_flip=False)
AS_IS = 1, "as is: the untouched ImageNet classifier"
PUZZLE = 7, "test confusion matrix"
LOOKS = PUZZLE[0] + len(BASELINES) + 1, "the recipe of rung 6, asked in other ways"
WAYS = {
    "of the untouched image": Ensemble(),
    "of its centre 0.875": Ensemble((View(0.875),)),
    "of two crops, averaged": Ensemble((View(0.875), View(0.78))),
    "of two crops, and logistic regression": Ensemble(
        (View(0.875), View(0.78)), "logistic regression", 0.5
    ),
}
_NO_FOLDS = (
    "The ladder cross-validates, and these data cannot be: {}. Add images, or omit the class."
)
Names = dict[str, dict[str, int]]  # by class, how often which name was given, the top one first


@dataclass(frozen=True)
class Rung:
    """One fit of the ladder, 2 to 6: what is new in it, and how it trains."""

    number: int
    title: str
    recipe: Recipe
    published: Mapping[str, str]  # by metric, or ""; several values are those of the last epochs
    augmented: bool = True


def _recipe(n_unfrozen: int, epochs: int, lr_schedule: str = "constant") -> Recipe:
    return Recipe(n_unfrozen, 0.5, epochs, lr_schedule, LEARNING_RATE)


def _figures(train: str = "", valid: str = "", **before: str) -> dict[str, str]:
    return before | {"train_accuracy": train, "valid_accuracy": valid}


RUNGS = (
    Rung(
        2,
        "frozen base, 3 epochs, no augmentation",
        _recipe(0, 3),
        _figures("0.35, 0.63, 0.72", "0.76, 0.88, 0.88", trainable_parameters="330,506"),
        augmented=False,
    ),
    Rung(3, "the same with augmentation", _recipe(0, 3), _figures()),
    Rung(4, "last 4 base layers unfrozen", _recipe(4, 3), _figures(trainable_parameters="743,306")),
    Rung(5, "nine epochs", _recipe(4, 9), _figures("> 0.9", "> 0.9")),
    Rung(
        6,
        "learning rate reduced on a plateau",
        _recipe(4, 9, "plateau"),
        _figures("0.961", "0.90 (0.94 claimed)", train_loss="0.117", valid_loss="0.272")
        # The valid split is balanced, so recall is accuracy there: a recall of 0.960 beside a valid
        # accuracy of 0.90 was measured on the training images.
        | {"train_macro_precision": "0.966", "train_macro_recall": "0.960"},
    ),
)


@dataclass(frozen=True)
class Row:
    """A line of the table: a figure as published ("" where it is not) and as it is here."""

    rung: int
    title: str
    figure: str
    published: str
    here: str
    rate: Rate | None = None  # the value here, where it is a share of images

    def record(self) -> dict[str, object]:
        fields = {name: value for name, value in vars(self).items() if name != "rate"}
        if self.rate is None:
            return fields
        low, high = self.rate.interval
        return fields | {"right": self.rate.successes, "n": self.rate.n, "low": low, "high": high}


def climb(
    backbone: Backbone, source: DataSource, store: Store, features: FeatureStore, say: Say
) -> str:
    """Walks all rungs and records the table in a run of its own; the table as Markdown.

    All input is checked before anything is recorded. Only rung 7 opens the test split.
    """
    data, spec, record = source.data, backbone.spec, DataRecord.of(source)
    configs = [ladder_config(spec.name, source.kind, augmented) for augmented in (False, True)]
    splits = {s: read_split(data, s, spec.image_size, say=say) for s in ("train", "valid")}
    folds = make_folds(splits["train"], configs[0].n_folds, SEED, _NO_FOLDS)
    classifier = None
    try:
        if source.kind == "drawn":
            raise NoWeights("it names photographs, and these images are drawn.")
        classifier = load_classifier(spec)
    except NoWeights as missing:
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

    rows, names = [], []
    with closed(parent):
        parent.params({"backbone": spec.name, "weights": backbone.origin})
        parent.data(record)
        if classifier is not None:
            with rung(*AS_IS) as run:
                found = name_images(run, spec, classifier, splits["train"], data.classes)
                rows, names = rows_of_names(found), [names_table(found)]
        for step in RUNGS:
            with rung(step.number, step.title) as run:
                bench = augmented if step.augmented else plain
                result, found = fit_rung(run, step, bench, record)
                rows += found
        with rung(*PUZZLE) as run:
            # Counted before it happens, so that an interrupted opening is counted too.
            run.tags({"test_openings": 1})
            test = read_split(data, "test", spec.image_size, say=say)
            rows += solve_puzzle(run, bench, result, test)
        for number, baseline in enumerate(BASELINES, start=PUZZLE[0] + 1):
            with rung(number, baseline) as run:
                rows += run_baseline(run, number, baseline, plain, folds)
        with rung(*LOOKS) as run:
            rows += ask_otherwise(run, backbone, source, splits, folds, features)
        table = "\n\n".join([as_markdown(rows), notes_on(spec.name, source.kind), *names])
        with parent.artifacts() as folder:
            (folder / "ladder.md").write_text(table + "\n", encoding="utf-8")
            write_json(folder / "ladder.json", [row.record() for row in rows])
    return table


def ladder_config(backbone: str, kind: str, augmented: bool) -> StudyConfig:
    """What all fits on a kind of data with, or without, augmentation share."""
    return StudyConfig(
        name="ladder",
        backbone=backbone,
        image_size=DRAWN_SIZE if kind == "drawn" else None,
        space=SearchSpace(n_unfrozen=tuple(PUBLISHED_PARAMETERS)),
        objective=OBJECTIVES["valid"],
        augmentation=Augmentation() if augmented else NO_AUGMENTATION,
        n_views=max(rung.recipe.epochs for rung in RUNGS) if augmented else 1,
        seed=SEED,
    )


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
    scores = pixels_to_cut(spec, classifier, len(classifier.layers) - 1)
    return in_batches(scores, pixels, batch_size()).argmax(axis=1)


def class_names() -> list[str]:
    """The 1000 names of ILSVRC 2012, by index; "crane" and "maillot" each name two classes."""
    return (files("nutclf.model") / "imagenet_classes.txt").read_text("utf-8").splitlines()


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
    return _aligned(cells)


def rows_of_names(names: Names) -> list[Row]:
    """The published misnamings and how often they happen here; then all classes together."""
    rows, every = [], sum(map(Counter, names.values()), Counter())
    # Of each of these nuts one image was published, with what the classifier said of it.
    for name, published in (("coconut", "face powder"), ("pistachios", "cucumber")):
        if found := names.get(name):
            rate = Rate(found.get(published, 0), sum(found.values()))
            here = f"{rate.share:.3f}; most often {next(iter(found))}"
            rows.append(Row(*AS_IS, f"{name} called {published}", "1 image", here, rate))
    rate, acorns = Rate(every["acorn"], every.total()), "called acorn, ImageNet's one nut"
    return [*rows, Row(*AS_IS, acorns, "", f"{rate.share:.3f}", rate)]


def fit_rung(
    run: Run, rung: Rung, bench: Workbench, data: DataRecord
) -> tuple[FitResult, list[Row]]:
    """Trains a rung and records it in `run` as a trial is; its fit, and its lines of the table."""
    config, classes, recipe = bench.config, bench.classes, rung.recipe
    log_settings(run, config, recipe, data, config.seed)
    run.params(vars(config.augmentation))
    result = bench.fit(recipe, on_epoch=lambda epoch, seen: log_epochs(run, {epoch: seen}))
    run.params(result.facts)
    counted = result.facts["trainable_parameters"]
    check_parameters(config.backbone, len(classes), recipe.n_unfrozen, counted)
    log_best(run, result.history)
    whole = assembled(bench, result)
    train, valid = bench.splits["train"], bench.splits["valid"]
    table = prediction_table(valid.paths, valid.labels, whole.y_prob, classes)
    metadata = data.model_metadata(config.backbone, bench.backbone.spec.image_size)
    log_curves(run, result.history)
    log_model_of(run, whole, table, None, metadata)
    # The kept epoch on the untouched training images, without dropout.
    untouched = bench.predict(result, "train")[0]
    table = prediction_table(train.paths, train.labels, untouched, classes)
    metrics = metrics_of("train", table, classes)
    kept = {name: metrics[name] for name in ("train_macro_precision", "train_macro_recall")}
    spent = {"time_features_s": result.seconds_features, "time_train_s": result.seconds_train}
    run.metrics(kept | spent)
    rows, epochs = [], result.history.epochs
    for metric, published in rung.published.items():
        label, rate = metric.replace("macro_", "").replace("_", " "), None
        if metric == "trainable_parameters":
            here = f"{counted:,}"
        elif metric in kept:
            label, here = f"{label}, kept epoch", f"{kept[metric]:.3f}"
        else:
            last, shown = len(epochs), len(published.split(", "))
            label += f", epoch {last}" if shown == 1 else f", epochs {last - shown + 1}-{last}"
            values = [epoch[metric] for epoch in epochs[-shown:]]
            here = ", ".join(f"{value:.3f}" for value in values)
            if metric.endswith("_accuracy"):
                n = len(bench.splits[metric.removesuffix("_accuracy")].labels)
                rate = Rate(round(values[-1] * n), n)
        rows.append(Row(rung.number, rung.title, label, published, here, rate))
    return result, rows


def check_parameters(backbone: str, n_classes: int, n_unfrozen: int, counted: int) -> None:
    """Raises RuntimeError where the published network trains another number of parameters."""
    # Each class adds 256 weights and a bias to the head.
    wanted = PUBLISHED_PARAMETERS[n_unfrozen] + 257 * (n_classes - 10)
    if backbone == PUBLISHED_BACKBONE and counted != wanted:
        raise RuntimeError(
            f"{counted:,} parameters train with {n_unfrozen} layers unfrozen; the published "
            f"network has {wanted:,} for {n_classes} classes"
        )


def solve_puzzle(run: Run, bench: Workbench, result: FitResult, test: Split) -> list[Row]:
    """Evaluates one good model correctly and wrongly, and records it; nothing is chosen by it."""
    run.params({"backbone": bench.config.backbone, "seed": SEED})
    classes, (whole, _) = bench.classes, bench.assemble(result)
    y_prob = predict(whole, test.pixels)
    accuracy = float(np.mean(y_prob.argmax(axis=1) == test.labels))
    table = prediction_table(test.paths, test.labels, y_prob, classes)
    write_evaluation(run, "test", table, classes, accuracy)
    rows, records, exhibits = [], [], []
    for key, cause, said in puzzle.evaluations(whole, bench.backbone.spec, test.pixels, y_prob):
        matrix = confusion_matrix(test.labels, said.argmax(axis=1), labels=range(len(classes)))
        found = puzzle.diagnose(matrix)
        rate, sentence = Rate(found.right, found.n), found.sentence(classes)
        run.tags({f"puzzle/{key}": f"{found.verdict}: {sentence}"})
        run.metrics({f"puzzle_{key}_accuracy": rate.share})
        record = {"key": key, "cause": cause, "accuracy": rate.share}
        record |= confusion_record(matrix, classes)
        records.append(record | {"diagnosis": asdict(found) | {"sentence": sentence}})
        published, here = "" if rows else "close to random", f"{rate.share:.3f}, {found.verdict}"
        rows.append(Row(*PUZZLE, f"accuracy, {cause}", published, here, rate))
        exhibits.append((cause, matrix, found))
    with run.artifacts() as folder:
        write_json(folder / FOLDER / "puzzle.json", records)
        puzzle.gallery(exhibits, classes).savefig(folder / FOLDER / "puzzle.png")
    return rows


def run_baseline(
    run: Run, number: int, name: str, bench: Workbench, folds: np.ndarray
) -> list[Row]:
    """Fits one of `BASELINES` on pooled features of untouched images, and records it in `run`."""
    classes, train, valid = bench.classes, bench.splits["train"], bench.splits["valid"]
    of_train, of_valid = (
        bench.features(split, bench.pool).all(WHOLE) for split in ("train", "valid")
    )
    facts = {"model": name, "seed": SEED, "backbone": bench.config.backbone, "features": "pooled"}
    run.params(facts | {"n_features": of_train.shape[1]})
    examples, title, rows = (of_train, train.labels), f"{name} on frozen features", []
    on_valid, held_out = judge(BASELINES[name](SEED), examples, folds, of_valid, len(classes))
    for split, label, images, y_prob, fold in (
        ("valid", "valid accuracy", valid, on_valid, None),
        ("cv", f"{folds.max() + 1}-fold accuracy", train, held_out, folds),
    ):
        rate = Rate(int((y_prob.argmax(axis=1) == images.labels).sum()), len(images.labels))
        table = prediction_table(images.paths, images.labels, y_prob, classes, fold)
        write_evaluation(run, split, table, classes, rate.share)
        # `write_evaluation` leaves the valid accuracy to the epochs; here there are none.
        run.metrics({f"{split}_accuracy": rate.share})
        rows.append(Row(number, title, label, "", f"{rate.share:.3f}", rate))
    return rows


def ask_otherwise(
    run: Run,
    backbone: Backbone,
    source: DataSource,
    splits: Mapping[str, Split],
    folds: np.ndarray,
    features: FeatureStore,
) -> list[Row]:
    """Cross-validates rung 6, and has its answers from other views, and beside a probe."""
    config = ladder_config(backbone.spec.name, source.kind, augmented=True)
    tta = tuple(ensemble.views for ensemble in WAYS.values())
    config = replace(config, objective=OBJECTIVES["cv"], tta=tuple(dict.fromkeys(tta)))
    bench, train = (
        Workbench(config, backbone, source.data.classes, splits, features),
        splits["train"],
    )
    probe = next(p for p in bench.fit_probes(folds) if p.name == "logistic regression")
    held_out = Answers(
        config.test_views, np.empty_like(probe.held_out), {probe.name: probe.held_out}
    )
    for fold in range(folds.max() + 1):
        fitted = bench.fit(RUNGS[-1].recipe, rows=np.flatnonzero(folds != fold))
        held_out.network[:, folds == fold] = fitted.held_out
    run.params({"backbone": backbone.spec.name, "seed": SEED, "folds": folds.max() + 1})
    rows = []
    for how, ensemble in WAYS.items():
        right = held_out.under(ensemble).argmax(axis=1) == train.labels
        rate = Rate(int(right.sum()), len(right))
        run.metrics({f"cv_accuracy {how}": rate.share})
        figure = f"{folds.max() + 1}-fold accuracy {how}"
        rows.append(Row(*LOOKS, figure, "", f"{rate.share:.3f}", rate))
    return rows


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table; a rung's number and title stand in its first line only."""
    cells, seen = [("Rung", "What", "Figure", "Published", "Here", "95 % Wilson interval")], None
    for row in rows:
        name, interval = ("", "") if row.rung == seen else (str(row.rung), row.title), ""
        if row.rate is not None:
            low, high = row.rate.interval
            interval = f"{low:.3f}-{high:.3f} ({row.rate.successes}/{row.rate.n})"
        cells.append((*name, row.figure, row.published or "–", row.here, interval))
        seen = row.rung
    return _aligned(cells)


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*escaped, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in escaped]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def notes_on(backbone: str, kind: str) -> str:
    """The paragraph below the table: how the figures were taken, and why they may differ."""
    differs = [] if backbone == PUBLISHED_BACKBONE else [f"the network here is {backbone}"]
    if kind == "drawn":
        differs.append(f"the images here are drawn, {DRAWN_SIZE} pixels wide")
    published = f"Published figures are MobileNetV2's on photographs; {' and '.join(differs)}. "
    return (published if differs else "") + (
        "Intervals belong to the last value of a line. Train figures are running means over an "
        "epoch, with dropout and augmentation; precision and recall are means over classes, on "
        "untouched images. Fits keep the epoch of the lowest valid loss; rung 7 judges the one "
        "that rung 6 kept."
    )
