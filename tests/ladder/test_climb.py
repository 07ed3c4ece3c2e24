"""A walk up the ladder with the tiny network: what it records, and how it ends."""

import itertools
import json
from dataclasses import dataclass, replace

import keras
import numpy as np
import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from nutclf.config import Augmentation, Recipe
from nutclf.errors import UserError
from nutclf.evaluate import baselines
from nutclf.evaluate.intervals import Rate
from nutclf.ladder import climb as module
from nutclf.ladder.climb import (
    NO_AUGMENTATION,
    RUNGS,
    Row,
    as_markdown,
    check_parameters,
    class_names,
    classify,
    climb,
    count_names,
    ladder_config,
    names_table,
    notes_on,
    rows_of_names,
)
from nutclf.model.backbones import NoWeights, find_spec
from nutclf.track.models import load_metadata
from nutclf.track.registry import model_uri
from nutclf.track.store import Store
from nutclf.train.views import Augmenter

FITS = ["2", "3", "4", "5", "6"]
BASELINES = {"8": "random forest", "9": "logistic regression", "10": "majority class"}


@dataclass
class Climbed:
    """One walk; only to be read."""

    store: Store
    table: str
    parent: MlflowRun
    rungs: dict[str, MlflowRun]

    @property
    def client(self) -> MlflowClient:
        return self.store.client()

    def file(self, run: MlflowRun, path: str, store: Store | None = None) -> str:
        folder = (store or self.store).folder / "artifacts/nutclf-ladder" / run.info.run_id
        return (folder / "artifacts" / path).read_text()


def runs_in(store, experiment="nutclf-ladder"):
    client = store.client()
    found = client.search_runs([store.experiment_id(experiment)])
    parents = [run for run in found if run.data.tags["kind"] == "ladder"]
    rungs = [run for run in found if run.data.tags["kind"] == "rung"]
    assert len(found) == len(parents) + len(rungs)
    return parents, rungs


@pytest.fixture(scope="module")
def reddest():
    """Calls an image tench, goldfish or great white shark by its brightest channel."""
    pixels = keras.Input((32, 32, 3))
    scores = keras.layers.Dense(1000, use_bias=False)
    model = keras.Model(pixels, scores(keras.layers.GlobalAveragePooling2D()(pixels)))
    weights = np.zeros((3, 1000), np.float32)
    weights[:, :3] = np.eye(3)  # scaled, the other channels are negative
    scores.set_weights([weights])
    return model


@pytest.fixture(scope="module")
def climbed(tmp_path_factory, migrated, copy_store, tiny_backbone, source, features, reddest):
    store = copy_store(migrated, tmp_path_factory.mktemp("ladder") / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_classifier", lambda spec: reddest)
        patch.setattr(baselines, "N_TREES", 9)  # three hundred take seconds, six times
        table = climb(tiny_backbone, source, store, features, print)
    (parent,), rungs = runs_in(store)
    return Climbed(store, table, parent, {run.data.tags["trial_number"]: run for run in rungs})


def test_every_rung_is_a_finished_child_of_the_walk(climbed):
    assert sorted(climbed.rungs, key=int) == ["1", *FITS, "7", *BASELINES, "11"]
    for run in (climbed.parent, *climbed.rungs.values()):
        assert (run.info.status, run.data.tags["trial_state"]) == ("FINISHED", "COMPLETE")
        assert run.data.tags["data_source"] == "photographs"
        assert len(run.inputs.dataset_inputs) == 1
    for run in climbed.rungs.values():
        assert run.data.tags["mlflow.parentRunId"] == climbed.parent.info.run_id


def test_rung_one_records_what_each_class_is_called(climbed):
    """Almonds are red here, pecans green and walnuts blue."""
    run = climbed.rungs["1"]
    often = "almonds: tench; pecans: goldfish; walnuts: great white shark"
    assert run.data.tags["named_most_often"] == often
    assert json.loads(climbed.file(run, "imagenet_names.json"))["pecans"] == {"goldfish": 8}
    names = climbed.file(run, "imagenet_names.md").strip()
    assert "goldfish 8" in names and climbed.table.endswith(names)


def test_fits_are_recorded_as_trials_are(climbed):
    for number in FITS:
        run = climbed.rungs[number]
        epochs = int(run.data.params["epochs"])
        for key in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy"):
            steps = [row.step for row in climbed.client.get_metric_history(run.info.run_id, key)]
            assert steps == list(range(1, epochs + 1))
        assert {"best_valid_accuracy", "best_epoch", "valid_macro_f1"} <= run.data.metrics.keys()
        assert {"train_macro_precision", "train_macro_recall"} <= run.data.metrics.keys()
        names = {file.path for file in climbed.client.list_artifacts(run.info.run_id, "evaluation")}
        assert {"evaluation/learning_curves.png", "evaluation/predictions_valid.csv"} <= names
        assert run.data.params["trainable_parameters"]
        assert load_metadata(climbed.store, model_uri(climbed.client, run))["classes"]


def test_rungs_train_what_they_say(climbed):
    params = {number: climbed.rungs[number].data.params for number in FITS}
    assert [params[n]["epochs"] for n in FITS] == ["3", "3", "3", "9", "9"]
    assert [params[n]["n_unfrozen"] for n in FITS] == ["0", "0", "4", "4", "4"]
    assert [params[n]["rotation"] for n in FITS] == ["0"] + ["0.1"] * 4
    assert [params[n]["lr_schedule"] for n in FITS] == ["constant"] * 4 + ["plateau"]


def test_the_table_and_its_json_are_the_records_of_the_runs(climbed):
    rows = json.loads(climbed.file(climbed.parent, "ladder.json"))
    assert climbed.file(climbed.parent, "ladder.md") == climbed.table + "\n"
    assert [row["rung"] for row in rows] == sorted(row["rung"] for row in rows)
    for number in FITS:
        run = climbed.rungs[number]
        (row,) = (
            row
            for row in rows
            if row["rung"] == int(number) and row["figure"].startswith("valid accuracy")
        )
        history = climbed.client.get_metric_history(run.info.run_id, "valid_accuracy")
        last = max(history, key=lambda metric: metric.step)
        assert row["right"] == round(last.value * 12) and row["n"] == 12
        assert row["figure"].endswith(f"{last.step}")
        assert row["low"] < row["right"] / 12 < row["high"] or row["right"] in (0, 12)
        line = f"| {row['here']}"
        assert line in climbed.table


def test_published_figures_stand_beside_as_many_epochs_of_ours(climbed):
    rows = json.loads(climbed.file(climbed.parent, "ladder.json"))
    (row,) = (r for r in rows if r["rung"] == 2 and r["figure"].startswith("train accuracy"))
    assert (row["figure"], row["published"]) == ("train accuracy, epochs 1-3", "0.35, 0.63, 0.72")
    history = climbed.client.get_metric_history(climbed.rungs["2"].info.run_id, "train_accuracy")
    ours = [f"{metric.value:.3f}" for metric in sorted(history, key=lambda m: m.step)]
    assert row["here"] == ", ".join(ours)
    assert row["n"] == 24


def test_the_test_split_is_opened_once_and_counted(climbed):
    counted = {n: run.data.tags.get("test_openings") for n, run in climbed.rungs.items()}
    assert counted == dict.fromkeys(climbed.rungs) | {"7": "1"}
    with_test = [n for n, run in climbed.rungs.items() if "test_accuracy" in run.data.metrics]
    assert with_test == ["7"]


def test_the_puzzle_shows_one_model_under_five_evaluations(climbed):
    run = climbed.rungs["7"]
    exhibits = json.loads(climbed.file(run, "evaluation/puzzle.json"))
    assert [shown["key"] for shown in exhibits] == [
        "true",
        "shuffled",
        "unscaled",
        "scaled_to_one",
        "renamed",
    ]
    for shown in exhibits:
        assert np.sum(shown["matrix"], axis=1).tolist() == [4, 4, 4]
        verdict = shown["diagnosis"]["verdict"]
        assert run.data.tags[f"puzzle/{shown['key']}"].startswith(f"{verdict}: The matrix has ")
        assert run.data.metrics[f"puzzle_{shown['key']}_accuracy"] == shown["accuracy"]
    rows = json.loads(climbed.file(climbed.parent, "ladder.json"))
    published = [row["published"] for row in rows if row["rung"] == 7]
    assert published == ["close to random", "", "", "", ""]
    true, shuffled, unscaled, _, renamed = (np.array(shown["matrix"]) for shown in exhibits)
    assert true.trace() / 12 == run.data.metrics["test_accuracy"]
    assert shuffled.sum(axis=0).tolist() == true.sum(axis=0).tolist(), "the same predictions"
    assert sorted(renamed.T.tolist()) == sorted(true.T.tolist()), "the same columns"
    assert renamed.tolist() != true.tolist()
    assert unscaled.tolist() != true.tolist()


def test_baselines_are_judged_on_both_splits(climbed):
    rows = json.loads(climbed.file(climbed.parent, "ladder.json"))
    for number, name in BASELINES.items():
        run = climbed.rungs[number]
        assert run.data.params["model"] == name
        for split, n, figure in (("valid", 12, "valid accuracy"), ("cv", 24, "5-fold accuracy")):
            (row,) = (r for r in rows if r["rung"] == int(number) and r["figure"] == figure)
            assert row["n"] == n
            assert row["right"] / n == pytest.approx(run.data.metrics[f"{split}_accuracy"])
            record = json.loads(climbed.file(run, f"evaluation/confusion_matrix_{split}.json"))
            assert np.trace(record["matrix"]) == row["right"]
    majority = climbed.rungs["10"].data.metrics
    assert majority["valid_accuracy"] == pytest.approx(1 / 3)


def test_another_walk_has_runs_of_its_own_and_the_same_figures(
    climbed, copy_store, tmp_path, tiny_backbone, source, features, monkeypatch
):
    """Its first fit and the puzzle only, and rung 1 left out for want of weights."""

    def no_classifier(spec):
        raise NoWeights("no weights here.")

    monkeypatch.setattr(module, "RUNGS", RUNGS[:1])
    monkeypatch.setattr(module, "BASELINES", {})
    monkeypatch.setattr(module, "load_classifier", no_classifier)
    store, said = copy_store(climbed.store.folder, tmp_path / "store"), []
    climb(tiny_backbone, source, store, features, said.append)
    assert said[0] == "rung 1 left out: no weights here."
    parents, rungs = runs_in(store)
    (new,) = (run for run in parents if run.info.run_id != climbed.parent.info.run_id)
    again, first = (
        [row for row in json.loads(climbed.file(run, "ladder.json", at)) if row["rung"] == 2]
        for run, at in ((new, store), (climbed.parent, climbed.store))
    )
    assert again == first
    added = [run for run in rungs if run.data.tags["mlflow.parentRunId"] == new.info.run_id]
    assert sorted(run.data.tags["trial_number"] for run in added) == ["11", "2", "7"]
    assert len(rungs) == len(climbed.rungs) + 3


@pytest.mark.parametrize("error", [ValueError("by chance"), KeyboardInterrupt()])
def test_whatever_ends_a_rung_closes_its_run_and_the_ladders(
    store, tiny_backbone, source, features, monkeypatch, error
):
    """On drawings, which have an experiment of their own and no rung 1."""

    def check(*arguments):
        raise error

    monkeypatch.setattr(module, "check_parameters", check)
    said = []
    with pytest.raises(type(error)):
        climb(tiny_backbone, replace(source, kind="drawn"), store, features, said.append)
    assert said[0] == "rung 1 left out: it names photographs, and these images are drawn."
    parents, rungs = runs_in(store, "nutclf-ladder-drawn")
    assert [run.info.status for run in parents + rungs] == ["FAILED", "FAILED"]
    reason = "ValueError: by chance" if isinstance(error, ValueError) else "interrupted"
    assert {run.data.tags["reason"] for run in parents + rungs} == {reason}


def test_data_too_few_to_fold_are_refused_before_anything_is_recorded(
    store, tiny_backbone, nuts, tmp_path, features
):
    import shutil

    from nutclf.data.source import resolve

    few = shutil.copytree(nuts, tmp_path / "few")
    for number in range(1, 8):
        (few / "train/pecans" / f"{number}.png").unlink()
    source = resolve(str(few), environ={}, workdir=tmp_path)
    with pytest.raises(UserError, match="is the only different image of its class"):
        climb(tiny_backbone, source, store, features, print)
    assert runs_in(store) == ([], [])


def test_names_are_counted_by_class_the_most_frequent_first():
    labels, given = np.array([0, 0, 0, 0, 1]), np.array(["crane", "bagel", "crane", "acorn", "x"])
    found = count_names(labels, given, ["almonds", "pecans", "walnuts"])
    assert list(found["almonds"].items()) == [("crane", 2), ("acorn", 1), ("bagel", 1)]
    assert (found["pecans"], found["walnuts"]) == ({"x": 1}, {})


def test_the_published_misnaming_is_counted_where_the_class_exists():
    names = {"coconut": {"acorn": 3, "face powder": 1}, "pecans": {"acorn": 2}}
    coconut, acorn = rows_of_names(names)
    assert (coconut.figure, coconut.published) == ("coconut called face powder", "1 image")
    assert (coconut.here, str(coconut.rate)[:11]) == ("0.250; most often acorn", "0.250 (1/4,")
    assert (acorn.rate.successes, acorn.rate.n) == (5, 6)
    line = names_table(names).splitlines()[2]
    assert line.startswith("| coconut | 4      | acorn 3, face powder 1")


def test_the_thousand_names_stand_at_their_published_indices():
    names = class_names()
    assert len(names) == 1000
    for index, name in {
        0: "tench", 1: "goldfish", 207: "golden retriever", 281: "tabby", 404: "airliner",
        551: "face powder", 850: "teddy", 943: "cucumber", 954: "banana", 988: "acorn",
        999: "toilet tissue",
    }.items():  # fmt: skip
        assert names[index] == name


def test_only_crane_and_maillot_come_twice():
    names = class_names()
    assert sorted({name for name in names if names.count(name) > 1}) == ["crane", "maillot"]
    assert [i for i, name in enumerate(names) if name == "crane"] == [134, 517], "bird, machine"
    assert all(name == name.strip() and name for name in names)


@pytest.fixture(scope="module")
def brightest():
    """Names the channel that is brightest once scaled, and every class above 2 never."""
    pixels = keras.Input((96, 96, 3))
    means = keras.layers.GlobalAveragePooling2D()(pixels)
    scores = keras.layers.Dense(1000, use_bias=False)
    model = keras.Model(pixels, scores(means))
    scores.set_weights([np.eye(3, 1000, dtype=np.float32)])
    return model


def test_every_image_is_named_by_its_own_largest_score(brightest):
    """20 images, more than one batch; the first of them wins in one channel alone."""
    pixels = np.full((20, 96, 96, 3), 128, np.uint8)
    wanted = np.arange(20) % 3
    for i, channel in enumerate(wanted):
        pixels[i, :, :, channel] = 200
    assert classify(find_spec("mobilenetv2"), brightest, pixels).tolist() == wanted.tolist()


def test_pixels_are_scaled_before_the_network_sees_them(brightest):
    """Darkness is -1 to this network: the class whose score is always 0 wins."""
    dark = np.zeros((1, 96, 96, 3), np.uint8)
    assert classify(find_spec("mobilenetv2"), brightest, dark).tolist() == [3]


def test_each_rung_changes_one_thing_and_the_last_is_the_published_recipe():
    changes = []
    for before, rung in itertools.pairwise(RUNGS):
        one, two = vars(before.recipe), vars(rung.recipe)
        changed = [key for key in one if one[key] != two[key]]
        changes.append(changed + ["augmented"] * (before.augmented != rung.augmented))
    assert changes == [["augmented"], ["n_unfrozen"], ["epochs"], ["lr_schedule"]]
    assert [rung.number for rung in RUNGS] == [2, 3, 4, 5, 6]
    assert RUNGS[-1].recipe == Recipe(learning_rate=1e-3)


def test_augmented_fits_see_a_new_view_each_epoch_and_plain_ones_the_image():
    plain, augmented = (ladder_config("mobilenetv2", "drawn", which) for which in (False, True))
    assert (plain.views, augmented.views) == (1, 9)
    assert augmented.augmentation == Augmentation()
    assert augmented.image_size == 128
    assert ladder_config("mobilenetv2", "photographs", True).image_size is None


def test_no_augmentation_changes_no_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    keys = ["a", "b", "c"]
    plain = Augmenter(NO_AUGMENTATION, 32, 0).view(pixels, keys, 0)
    assert np.array_equal(plain, pixels)
    assert not np.array_equal(Augmenter(Augmentation(), 32, 0).view(pixels, keys, 0), pixels)


@pytest.mark.parametrize(
    ("n_classes", "n_unfrozen", "counted"),
    [(10, 0, 330_506), (10, 4, 743_306), (3, 0, 330_506 - 7 * 257), (3, 4, 743_306 - 7 * 257)],
)
def test_parameters_are_those_published_for_any_number_of_classes(n_classes, n_unfrozen, counted):
    check_parameters("mobilenetv2", n_classes, n_unfrozen, counted)
    with pytest.raises(RuntimeError, match=f"{counted + 1:,} parameters .* has {counted:,}"):
        check_parameters("mobilenetv2", n_classes, n_unfrozen, counted + 1)
    check_parameters("densenet169", n_classes, n_unfrozen, 1)


def test_the_published_network_has_the_published_parameters():
    """The real network, with random weights: what the ladder checks is what it trains."""
    from nutclf.model import cuts, network
    from nutclf.model.backbones import load_backbone

    trunk = cuts.trunk(load_backbone("mobilenetv2", "random").model)
    for n_unfrozen in (0, 4):
        cut = cuts.cut_for_depth(trunk, n_unfrozen)
        tail = network.build_tail(trunk, cut, n_unfrozen, 10, 0.5, 0)
        counted = network.n_trainable(tail)
        check_parameters("mobilenetv2", 10, n_unfrozen, counted)


ROWS = [
    Row(2, "frozen", "valid accuracy, epochs 1-3", "0.76, 0.88", "0.800, 0.940", Rate(47, 50)),
    Row(2, "frozen", "trainable parameters", "330,506", "330,506"),
    Row(3, "a|b", "valid loss", "", "0.280"),
]


def test_the_table_names_a_rung_once_and_shows_intervals_with_their_counts():
    header, rule, *lines = as_markdown(ROWS).splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    assert cells[0] == [
        "2", "frozen", "valid accuracy, epochs 1-3", "0.76, 0.88", "0.800, 0.940",
        "0.838-0.979 (47/50)",
    ]  # fmt: skip
    assert lines[1].startswith("|      |")
    assert lines[2].startswith(r"| 3    | a\|b ")
    assert "| –" in lines[2], "not published"
    assert set(rule) == {"|", "-"}
    assert len({len(line) for line in (header, rule, *lines)}) == 1, "columns line up"


def test_a_row_as_json_has_the_interval_only_where_there_is_one():
    first, second, _ = (row.record() for row in ROWS)
    assert (first["right"], first["n"]) == (47, 50)
    assert (first["low"], first["high"]) == pytest.approx((0.838, 0.979), abs=5e-4)
    assert second == {
        "rung": 2, "title": "frozen", "figure": "trainable parameters", "published": "330,506",
        "here": "330,506",
    }  # fmt: skip


def test_what_makes_the_published_column_no_yardstick_is_said():
    assert "Published figures" not in notes_on("mobilenetv2", "photographs")
    assert "the network here is densenet169." in notes_on("densenet169", "photographs")
    assert "; the images here are drawn, 128 pixels wide." in notes_on("mobilenetv2", "drawn")
