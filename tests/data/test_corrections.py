"""A person's decisions make another data set of the same files."""

import hashlib

import pandas as pd
import pytest

from nutclf.config import SPLITS
from nutclf.data.corrections import correct
from nutclf.data.folder import scan
from nutclf.errors import UserError


@pytest.fixture
def decide(tmp_path):
    """Writes a table of decisions as a spreadsheet does; its file."""

    def decide(*rows):
        file = tmp_path / "decided.csv"
        columns = ["path", "label", "proposed", "reason", "decision"]
        table = [(path, label, "pecans", "", decision) for path, label, decision in rows]
        pd.DataFrame(table, columns=columns).to_csv(file, index=False, encoding="utf-8-sig")
        return file

    return decide


def test_labels_change_images_go_and_the_files_stay(nuts, decide):
    data = scan(nuts)
    before = {file: file.read_bytes() for file in nuts.rglob("*.png")}
    corrected = correct(
        data,
        decide(
            ("train/almonds/3.png", "almonds", "pecans"),
            ("train/walnuts/0.png", "walnuts", "drop"),
            ("train/walnuts/1.png", "walnuts", "keep"),
            ("valid/walnuts/1.png", "walnuts", ""),
        ),
    )
    labels = corrected.files.set_index("path")["label"]
    assert corrected.classes[labels["train/almonds/3.png"]] == "pecans"
    assert "train/walnuts/0.png" not in labels.index
    assert len(labels) == len(data.files) - 1
    assert len(corrected.split("train")) == 23
    changed = labels != data.files.set_index("path")["label"][labels.index]
    assert list(labels.index[changed]) == ["train/almonds/3.png"]
    assert "1 labels corrected and 1 images dropped by " in corrected.notes[-1]
    assert before == {file: file.read_bytes() for file in nuts.rglob("*.png")}


def test_it_is_another_data_set_unless_nothing_is_decided(nuts, decide):
    data = scan(nuts)
    marks = {data.fingerprint}
    for decision in ("pecans", "walnuts", "drop"):
        marks.add(correct(data, decide(("train/almonds/3.png", "almonds", decision))).fingerprint)
    assert len(marks) == 4
    kept = correct(data, decide(("train/almonds/3.png", "almonds", "keep")))
    assert kept.fingerprint == data.fingerprint


def test_the_fingerprint_of_folders_is_that_of_version_0_2(nuts):
    rows = sorted(
        (path.relative_to(nuts).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in nuts.rglob("*.png")
    )
    text = "".join(f"{path}\0{digest}\0" for path, digest in rows)
    assert scan(nuts).fingerprint == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("99", "almonds", "drop")], "'train/almonds/99.png', which is no image"),
        ([("3", "pecans", "drop")], "is labelled 'pecans'; .* says 'almonds'"),
        ([("3", "almonds", "dorp")], "decides 'dorp' .* or a class .almonds, pec"),
        ([("3", "almonds", "drop"), ("3", "almonds", "keep")], "decides 'drop' and 'keep' on"),
        (
            [(str(number), "almonds", "drop") for number in range(8)],
            "8 images dropped by .*: train/ has class folders without an image: almonds",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_one_sentence(nuts, decide, rows, sentence):
    with pytest.raises(UserError, match=sentence):
        correct(scan(nuts), decide(*((f"train/almonds/{n}.png", *row) for n, *row in rows)))


def test_a_row_without_a_decision_does_not_contradict_one_with(nuts, decide):
    path = "train/almonds/3.png"
    corrected = correct(scan(nuts), decide((path, "almonds", ""), (path, "almonds", "drop")))
    assert path not in set(corrected.files["path"])


def test_the_column_must_be_there_and_no_class_be_called_as_a_decision(nuts, tmp_path, tree):
    file = tmp_path / "suspects.csv"
    file.write_text("path,label,proposed,reason\n")
    with pytest.raises(UserError, match="has no column of decisions"):
        correct(scan(nuts), file)
    with pytest.raises(UserError, match="cannot be read"):
        correct(scan(nuts), tmp_path / "none.csv")
    for split in SPLITS:
        (tree / split / "almonds").rename(tree / split / "drop")
    file.write_text("path,label,decision\n")
    with pytest.raises(UserError, match="classes called drop"):
        correct(scan(tree), file)
