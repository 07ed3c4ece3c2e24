"""The audit as a whole: what it finds in images that were spoiled on purpose, and what it keeps."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nutclf.audit.images import SHOWN, audit_folder, audit_images, audit_lines, check_same_data
from nutclf.data.corrections import correct
from nutclf.data.source import resolve
from nutclf.errors import UserError
from nutclf.evaluate.predictions import prediction_table
from nutclf.track.evaluation import write_evaluation
from nutclf.track.runs import Run, study_run, trial_run
from nutclf.train.feature_store import FeatureStore

DATA, WEIGHTS = os.environ.get("NUTCLF_DATA"), os.environ.get("NUTCLF_WEIGHTS")
FILES = {"audit.json", "contact_sheet.png", "suspects.csv"}
WRONG = "train/almonds/wrong.png"


@pytest.fixture(scope="module")
def config(tiny_config):
    """A study of the network whose weights ship with the package."""
    return replace(tiny_config, name="audited", backbone="mobilenetv2", image_size=96)


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
    return FeatureStore(tmp_path_factory.mktemp("features"), 10**8)


@pytest.fixture(scope="module")
def audited(config, spoiled, features, migrated, copy_store, tmp_path_factory):
    """The store after an audit, and the audit."""
    store = copy_store(migrated, tmp_path_factory.mktemp("audited") / "store")
    return store, audit_images(config, spoiled, store, features, print)


def test_the_wrong_label_is_the_first_suspect_and_no_label_of_test_is_judged(audited):
    labels = audited[1].labels
    first = labels.suspects.iloc[0]
    assert (first.path, first.label, first.looks_like) == (WRONG, "almonds", "pecans")
    assert labels.judged_by.endswith("frozen mobilenetv2 features, 5 folds")
    assert labels.n_images == 3 * 8 - 1 + 3 * 4
    assert not labels.suspects["path"].str.startswith("test/").any()


def test_all_of_it_is_kept_with_the_study_and_in_the_store(audited, spoiled):
    store, audit = audited
    assert audit.copy == store.folder / "audit" / "audited"
    assert {path.name for path in audit.copy.iterdir()} == FILES
    (parent,) = store.client().search_runs([store.experiment_id("nutclf")])
    tags = parent.data.tags
    assert (tags["study_name"], tags["kind"]) == ("audited", "study")
    assert (parent.info.status, tags["data_fingerprint"]) == ("FINISHED", spoiled.data.fingerprint)
    kept = {file.path for file in store.client().list_artifacts(parent.info.run_id, "audit")}
    assert kept == {f"audit/{name}" for name in FILES}


def test_the_json_and_the_table_hold_every_finding(audited, spoiled):
    audit = audited[1]
    record = json.loads((audit.copy / "audit.json").read_text(encoding="utf-8"))
    assert record["leaks"] == {"test/walnuts/9.png": "train/walnuts/3.png"}
    assert [found["path"] for found in record["unreadable"]] == ["train/walnuts/0.png"]
    assert record["label_suspects"]["suspects"][0]["path"] == WRONG
    assert record["data_fingerprint"] == spoiled.data.fingerprint
    assert record["balance"]["train"] == {"almonds": 9, "pecans": 7, "walnuts": 8}


def test_the_table_is_one_to_decide_on(audited, spoiled):
    audit = audited[1]
    table = pd.read_csv(audit.copy / "suspects.csv")
    assert list(table.columns) == ["path", "label", "proposed", "reason"]
    rows = table.set_index("path").T.to_dict()
    assert rows["train/walnuts/0.png"]["proposed"] == "drop"
    assert "HTML" in rows["train/walnuts/0.png"]["reason"]
    wrong = rows[WRONG]
    assert (wrong["label"], wrong["proposed"]) == ("almonds", "pecans")
    assert wrong["reason"].startswith("looks like pecans (")
    assert set(audit.labels.suspects["path"]) <= set(rows)
    table.assign(decision=table["proposed"]).to_csv(audit.copy / "decided.csv", index=False)
    corrected = correct(spoiled.data, audit.copy / "decided.csv")
    assert corrected.classes[corrected.files.set_index("path")["label"][WRONG]] == "pecans"
    assert "train/walnuts/0.png" not in set(corrected.files["path"])
    (audit.copy / "decided.csv").unlink()


def test_the_contact_sheet_shows_the_suspect_and_both_sides_of_the_leak(audited):
    with Image.open(audited[1].copy / "contact_sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    shades = pixels - pixels.mean(axis=2, keepdims=True)
    for channel, least in ((1, 1), (2, 2)):  # pecans are green, walnuts blue
        area = (shades[..., channel] > 10).sum() / 178**2
        assert area > 0.7 * least, f"channel {channel} covers {area:.2f} pictures"


def test_the_terminal_names_what_to_look_at_first_and_cuts_long_lists(audited):
    audit = audited[1]
    many = pd.concat([audit.labels.suspects.head(1)] * 25)
    lines = audit_lines(replace(audit, labels=replace(audit.labels, suspects=many)))
    text = "\n".join(lines)
    assert "  test/walnuts/9.png is train/walnuts/3.png: equal bytes" in lines
    assert "unreadable files                         1" in lines
    assert "train/walnuts/0.png: it is an HTML or XML page" in text
    assert text.count(f"almonds, looks like pecans: {WRONG}") == SHOWN
    assert "  and 15 more" in lines
    assert "Left out of the test figures at promotion: test/walnuts/9.png" in lines
    assert lines[-1].endswith(f"{audit.copy}/")
    assert text.isascii(), "plain when piped"


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
        table = prediction_table(
            files["path"], files["label"], np.eye(3)[said] * 0.7 + 0.1, classes, fold
        )
        write_evaluation(run, name, table, classes, float((said == files["label"]).mean()))
    run.metrics({config.objective.metric: 0.5})
    run.end("COMPLETE")


def test_a_study_s_own_predictions_judge_its_labels(config, spoiled, source, store, features):
    """They say that walnut 5 is an almond, which no other model would."""
    record_trial(store, config, spoiled, "train/walnuts/5.png")
    with pytest.raises(UserError, match=r"'audited' was begun on data with fingerprint .*NAME="):
        audit_images(config, source, store, features, print)
    assert not (store.folder / "audit").exists()
    audit = audit_images(config, spoiled, store, features, pytest.fail)
    assert list(audit.labels.suspects["path"]) == ["train/walnuts/5.png"]
    assert audit.labels.judged_by == "t000 of study audited, cross-validated"


def test_without_weights_the_files_are_judged_all_the_same(
    tiny_config, spoiled, store, features, monkeypatch, tmp_path
):
    monkeypatch.setenv("NUTCLF_WEIGHTS", str(tmp_path / "nowhere"))
    config = replace(tiny_config, backbone="densenet169")
    audit = audit_images(config, spoiled, store, features, print)
    assert audit.files.leaks == {"test/walnuts/9.png": "train/walnuts/3.png"}
    assert "nowhere" in audit.labels.skipped and audit.labels.suspects.empty
    assert {path.name for path in audit.copy.iterdir()} == FILES
    assert any(line.startswith("Labels were not judged: ") for line in audit_lines(audit))


@pytest.mark.parametrize(
    ("kept", "words"),
    [(1, "pecans/0.png is the only different image of its class; give"), (3, "features, 3 folds")],
)
def test_a_class_of_few_images_has_as_few_folds(
    config, nuts, store, features, tmp_path, kept, words
):
    root = shutil.copytree(nuts, tmp_path / "nuts")
    for number in range(kept, 8):
        (root / f"train/pecans/{number}.png").unlink()
    source = resolve(str(root), environ={}, workdir=tmp_path)
    labels = audit_images(config, source, store, features, print).labels
    assert words in labels.skipped + labels.judged_by


@pytest.fixture
def keep(store, data_facts):
    """Keeps an audit that is one file; gives where its copy lies."""

    def keep(study="tiny", text="found", data=data_facts):
        with audit_folder(store, store.experiment_id("nutclf"), study, data) as (folder, copy):
            (folder / "audit.json").write_text(text, encoding="utf-8")
        return copy

    return keep


def parent_of(store):
    """The only run of a study."""
    (run,) = store.client().search_runs([store.experiment_id("nutclf")], "tags.kind = 'study'")
    return run


def test_the_run_of_a_sweep_at_work_stays_as_it_is(keep, store, data_facts):
    study = study_run(store, store.experiment_id("nutclf"), "tiny", data_facts.tags)
    trial = trial_run(study, "t000", 0, data_facts.tags)
    keep()
    parent = parent_of(store)
    assert (parent.info.run_id, parent.info.status) == (study.run_id, "RUNNING")
    Run(store.client(), trial.run_id).end("COMPLETE")
    study.close("FINISHED")
    ended = parent_of(store).info.end_time
    keep()
    assert parent_of(store).info.end_time == ended


def test_a_second_audit_replaces_the_first_and_its_data(keep, store, data_facts):
    keep(text="much was found")
    copy = keep(text="little", data=replace(data_facts, fingerprint="f" * 64))
    assert (copy / "audit.json").read_text(encoding="utf-8") == "little"
    parent = parent_of(store)
    path = store.client().download_artifacts(parent.info.run_id, "audit/audit.json")
    with open(path, encoding="utf-8") as file:
        assert file.read() == "little"
    assert parent.data.tags["data_fingerprint"] == "f" * 64  # images mended between audits


@pytest.mark.parametrize("study", ["../../out", "a/b", "..", "/"])
def test_no_name_leads_out_of_the_store(keep, store, study):
    copy = keep(study)
    assert copy.parent == store.folder / "audit"
    assert (copy / "audit.json").exists()
    assert copy.resolve() == copy


def test_only_trials_on_other_data_refuse_the_audit(store, data_facts):
    experiment, others = store.experiment_id("nutclf"), replace(data_facts, fingerprint="f" * 64)
    study = study_run(store, experiment, "tiny", data_facts.tags)
    check_same_data(store, experiment, "tiny", others)  # no trial yet: images may be mended
    trial_run(study, "t000", 0, data_facts.tags)
    check_same_data(store, experiment, "tiny", data_facts)
    check_same_data(store, experiment, "another", others)
    with pytest.raises(UserError, match=r"'tiny' was begun on .* and these have ffff.*NAME="):
        check_same_data(store, experiment, "tiny", others)


@pytest.mark.photographs
@pytest.mark.skipif(
    not (DATA and WEIGHTS), reason="NUTCLF_DATA and NUTCLF_WEIGHTS are not both set"
)
def test_the_photographs_known_faults_are_found(store, tiny_config, monkeypatch, tmp_path):
    """The bowl of almonds among the pine nuts, and pecans twice, once as brazil nuts."""
    monkeypatch.setenv("NUTCLF_WEIGHTS", WEIGHTS)
    config = replace(tiny_config, backbone="mobilenetv2")
    source = resolve(DATA, environ={}, workdir=tmp_path)
    audit = audit_images(config, source, store, FeatureStore(tmp_path / "features", 10**9), print)
    top = list(audit.labels.suspects.head(5)["path"])
    assert "train/pine nuts/58.jpg" in top
    assert "train/brazil nuts/094.jpg" in top
    assert audit.files.leaks == {"test/coconut/4.jpg": "train/coconut/07.jpg"}
