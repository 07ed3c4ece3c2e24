"""The champion as files: beside it on its run, and the test split's opening counted."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nutclf.errors import UserError
from nutclf.evaluate.intervals import Rate
from nutclf.serve import export as portable
from nutclf.serve.export import compare, export_champion
from nutclf.track.registry import CHAMPION, Registry


@pytest.fixture
def kept(with_champion, copy_store, tmp_path):
    return copy_store(with_champion.folder, tmp_path / "store")


def run_of(store):
    version = Registry(store.client(), "nutclf").at(CHAMPION)
    return store.client().get_run(version.run_id)


def test_files_figures_and_the_opening_are_on_the_champions_run(kept, tmp_path, load_split, source):
    before = int(run_of(kept).data.tags["test_openings"])

    def unlabelled(split, size):
        return replace(load_split(split, size), labels=None)

    fingerprint, out = source.data.fingerprint, tmp_path / "exports"
    floats, ints = export_champion(kept, "nutclf", "litert", out, unlabelled, fingerprint)
    run = run_of(kept)
    assert int(run.data.tags["test_openings"]) == before + 1
    names = {"nutclf-v1-float.tflite", "nutclf-v1-int8.tflite", "nutclf-v1.json"}
    assert {path.name for path in out.iterdir()} == names
    stored = kept.client().list_artifacts(run.info.run_id, "export")
    assert {file.path for file in stored} == {f"export/{name}" for name in names}
    assert floats.difference < 1e-5 < ints.difference
    assert (floats.on_test, floats.on_valid) == (Rate(12, 12), Rate(12, 12))
    metrics = run.data.metrics
    assert metrics["export_litert_float_agreement"] == 1
    assert metrics["export_litert_int8_difference"] == ints.difference
    assert metrics["export_litert_int8_megabytes"] < metrics["export_litert_float_megabytes"]
    assert metrics["export_litert_float_ms"] > 0
    facts = json.loads((out / "nutclf-v1.json").read_text())
    assert facts["classes"] == ["almonds", "pecans", "walnuts"]
    assert facts["image_size"] == 32
    assert facts["temperature"] > 0


def test_agreement_is_of_classes_and_the_difference_of_probabilities(tmp_path):
    file = tmp_path / "model.tflite"
    file.write_bytes(b"12345")
    pixels = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    expected = np.array([[0.9, 0.1], [0.4, 0.6], [0.55, 0.45]])
    given = np.array([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    found = compare(
        file,
        lambda photograph: given[photograph[0, 0, 0]],
        {"test": pixels, "valid": pixels[:1]},
        {"test": expected, "valid": expected[:1]},
    )
    assert (found.on_test, found.on_valid) == (Rate(2, 3), Rate(1, 1))
    assert found.difference == pytest.approx(0.25)
    assert found.megabytes == 5e-6


def test_other_data_than_the_champions_are_refused_before_they_are_read(kept, tmp_path):
    with pytest.raises(UserError, match=r"was trained on data with fingerprint .* DATA="):
        export_champion(kept, "nutclf", "litert", tmp_path / "out", None, "f" * 64)
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_is_told_with_those_that_are_known(kept, tmp_path):
    with pytest.raises(UserError, match=r"--to is 'coreml'; allowed: litert, onnx\."):
        export_champion(kept, "nutclf", "coreml", tmp_path, None, "")


def test_a_folder_that_cannot_be_written_is_told(kept, tmp_path, load_split, source, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(portable, "litert_float", lambda model, images: b"")
    with pytest.raises(UserError, match=r"cannot be written .*OUT="):
        export_champion(
            kept, "nutclf", "litert", tmp_path / "file", load_split, source.data.fingerprint
        )
