"""The audit as a whole: what it finds in images that were spoiled on purpose, and what it keeps."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nutclf.audit.images import SHOWN, audit_images, audit_lines
from nutclf.data.source import resolve
from nutclf.errors import UserError
from nutclf.evaluate.predictions import prediction_table
from nutclf.search.places import Places
from nutclf.track.evaluation import write_evaluation
from nutclf.track.runs import study_run, trial_run

DATA, WEIGHTS = os.environ.get("NUTCLF_DATA"), os.environ.get("NUTCLF_WEIGHTS")
FILES = {"audit.json", "contact_sheet.png", "suspects.csv"}
WRONG = "train/almonds/wrong.png"


@pytest.fixture(scope="module")
def config(tiny_config):
    """A study of the network that ships with the package: nothing has to be had from elsewhere."""
    return replace(tiny_config, name="audited", backbone="mobilenetv2-drawn")


@pytest.fixture(scope="module")
def spoiled(nuts, tmp_path_factory):
    """A pecan among the almonds, a test image that is a training image, and a broken file."""
    root = shutil.copytree(nuts, tmp_path_factory.mktemp("spoiled") / "nuts")
    (root / "train/pecans/0.png").rename(root / WRONG)
    shutil.copy(root / "train/walnuts/3.png", root / "test/walnuts/9.png")
    (root / "train/walnuts/0.png").write_text("<html>404</html>")
    return resolve(str(root), environ={}, workdir=root)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def audited(config, spoiled, features, migrated, copy_store, tmp_path_factory):
    """The store after an audit, and the audit."""
    store = copy_store(migrated, tmp_path_factory.mktemp("audited") / "store")
    return store, audit_images(config, spoiled, Places(store, features, 10**8), print)


def test_the_wrong_label_is_the_first_suspect(audited):
    _, audit = audited
    first = audit.labels.suspects.iloc[0]
    assert (first.path, first.label, first.looks_like) == (WRONG, "almonds", "pecans")
    assert audit.labels.judged_by.endswith("frozen mobilenetv2-drawn features, 5 folds")


def test_labels_of_train_and_valid_are_judged_and_never_those_of_test(audited):
    _, audit = audited
    assert audit.labels.n_images == 3 * 8 - 1 + 3 * 4
    assert not audit.labels.suspects["path"].str.startswith("test/").any()


def test_all_of_it_is_kept_with_the_study_and_in_the_store(audited, config):
    store, audit = audited
    assert audit.copy == store.folder / "audit" / "audited"
    assert {path.name for path in audit.copy.iterdir()} == FILES
    client = store.client()
    (parent,) = client.search_runs([store.experiment_id("nutclf")])
    assert (parent.data.tags["study_name"], parent.data.tags["kind"]) == (config.name, "study")
    kept = {file.path for file in client.list_artifacts(parent.info.run_id, "audit")}
    assert kept == {f"audit/{name}" for name in FILES}


def test_the_json_holds_every_finding(audited, spoiled):
    _, audit = audited
    record = json.loads((audit.copy / "audit.json").read_text(encoding="utf-8"))
    assert record["leaks"] == {"test/walnuts/9.png": "train/walnuts/3.png"}
    assert [found["path"] for found in record["unreadable"]] == ["train/walnuts/0.png"]
    assert record["label_suspects"]["suspects"][0]["path"] == WRONG
    assert record["data_fingerprint"] == spoiled.data.fingerprint
    assert record["balance"]["train"] == {"almonds": 9, "pecans": 7, "walnuts": 8}


def test_the_table_reads_back(audited):
    _, audit = audited
    table = pd.read_csv(audit.copy / "suspects.csv")
    pd.testing.assert_frame_equal(table, audit.labels.suspects, check_dtype=False)


def test_the_contact_sheet_shows_the_suspect_and_both_sides_of_the_leak(audited, spoiled):
    _, audit = audited
    with Image.open(audit.copy / "contact_sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    shades = pixels - pixels.mean(axis=2, keepdims=True)
    for channel, least in ((1, 1), (2, 2)):  # pecans are green, walnuts blue
        area = (shades[..., channel] > 10).sum() / 178**2
        assert area > 0.7 * least, f"channel {channel} covers {area:.2f} pictures"


def test_the_terminal_names_what_to_look_at_first(audited):
    _, audit = audited
    lines = audit_lines(audit)
    text = "\n".join(lines)
    assert "  test/walnuts/9.png is train/walnuts/3.png: equal bytes" in lines
    assert "unreadable files                         1" in lines
    assert "train/walnuts/0.png: it is an HTML or XML page" in text
    assert f"almonds, looks like pecans: {WRONG}" in text
    assert "Left out of the test figures at promotion: test/walnuts/9.png" in lines
    assert lines[-1].endswith(f"{audit.copy}/")
    assert text.isascii(), "plain when piped"


def test_long_lists_are_cut_on_the_terminal(audited):
    _, audit = audited
    many = pd.concat([audit.labels.suspects.head(1)] * 25)
    lines = audit_lines(replace(audit, labels=replace(audit.labels, suspects=many)))
    assert sum(WRONG in line for line in lines) == SHOWN
    assert "  and 15 more" in lines


def test_a_study_s_own_predictions_judge_its_labels(config, spoiled, store, features):
    """They say that walnut 5 is an almond, which no other model would."""
    trial = record_trial(store, config, spoiled, "train/walnuts/5.png")
    audit = audit_images(config, spoiled, Places(store, features, 10**8), pytest.fail)
    assert list(audit.labels.suspects["path"]) == ["train/walnuts/5.png"]
    assert audit.labels.judged_by == "t000 of study audited, cross-validated"
    client = store.client()
    parent = client.get_run(client.get_run(trial.run_id).data.tags["mlflow.parentRunId"])
    assert client.list_artifacts(parent.info.run_id, "audit")


def test_predictions_on_other_data_do_not_judge(config, spoiled, source, store, features):
    record_trial(store, config, spoiled, "train/walnuts/5.png")
    with pytest.raises(UserError, match="was begun on data with fingerprint"):
        audit_images(config, source, Places(store, features, 10**8), print)
    assert not (store.folder / "audit").exists()


def record_trial(store, config, source, doubtful):
    """A finished trial whose out-of-fold predictions agree with every label but one."""
    classes, tags = source.data.classes, {"data_fingerprint": source.data.fingerprint}
    parent = study_run(store, store.experiment_id("nutclf"), config.name, tags)
    run = trial_run(parent, "t000", 0, tags)
    for split, name in (("train", "cv"), ("valid", "valid")):
        files = source.data.split(split)
        files = files[files["path"] != "train/walnuts/0.png"]
        said = files["label"].to_numpy(copy=True)
        said[files["path"] == doubtful] = 0
        fold = np.arange(len(said)) % 5 if name == "cv" else None
        y_prob = np.eye(3)[said] * 0.7 + 0.1
        table = prediction_table(files["path"], files["label"], y_prob, classes, fold)
        write_evaluation(run, name, table, classes, float((said == files["label"]).mean()))
    run.metrics({config.objective.metric: 0.5})
    run.end("COMPLETE")
    return run


def test_without_weights_the_files_are_judged_all_the_same(
    tiny_config, spoiled, store, features, monkeypatch, tmp_path
):
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path / "nowhere"))
    config = replace(tiny_config, backbone="mobilenetv2")
    audit = audit_images(config, spoiled, Places(store, features, 10**8), print)
    assert audit.files.leaks == {"test/walnuts/9.png": "train/walnuts/3.png"}
    assert "nowhere" in audit.labels.skipped
    assert audit.labels.suspects.empty
    assert {path.name for path in audit.copy.iterdir()} == FILES
    assert any(line.startswith("Labels were not judged: ") for line in audit_lines(audit))


def test_a_class_of_one_image_leaves_labels_unjudged(config, nuts, store, features, tmp_path):
    root = shutil.copytree(nuts, tmp_path / "nuts")
    for number in range(1, 8):
        (root / f"train/pecans/{number}.png").unlink()
    source = resolve(str(root), environ={}, workdir=tmp_path)
    audit = audit_images(config, source, Places(store, features, 10**8), print)
    assert "'pecans' has a single training image" in audit.labels.skipped


def test_a_class_of_few_images_has_as_few_folds(config, nuts, store, features, tmp_path):
    root = shutil.copytree(nuts, tmp_path / "nuts")
    for number in range(3, 8):
        (root / f"train/pecans/{number}.png").unlink()
    source = resolve(str(root), environ={}, workdir=tmp_path)
    audit = audit_images(config, source, Places(store, features, 10**8), print)
    assert audit.labels.judged_by.endswith(", 3 folds")


@pytest.mark.photographs
@pytest.mark.skipif(
    not (DATA and WEIGHTS), reason="NUTCLF_DATA and NUTCLF_WEIGHTS are not both set"
)
def test_the_photographs_known_faults_are_found(store, tiny_config, monkeypatch, tmp_path):
    """The bowl of almonds among the pine nuts, and pecans twice, once as brazil nuts."""
    monkeypatch.setenv("NUTCLF_WEIGHTS", WEIGHTS)
    config = replace(tiny_config, backbone="mobilenetv2")
    source = resolve(DATA, environ={}, workdir=tmp_path)
    audit = audit_images(config, source, Places(store, tmp_path / "features", 10**9), print)
    top = list(audit.labels.suspects.head(5)["path"])
    assert "train/pine nuts/58.jpg" in top
    assert "train/brazil nuts/094.jpg" in top
    assert audit.files.leaks == {"test/coconut/4.jpg": "train/coconut/07.jpg"}
