"""Files for phones and other runtimes: made, run, compared with the network, and recorded."""

import json

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from nutclf.config import View
from nutclf.errors import UserError
from nutclf.evaluate.intervals import Rate
from nutclf.model.network import Deployable, predict
from nutclf.serve import export
from nutclf.serve.export import compare, export_champion
from nutclf.track.registry import CHAMPION, Registry

SIDE = 32


@pytest.fixture(scope="module", params=["network", "probe"])
def network(request, tiny_whole, tiny_backbone):
    whole = tiny_whole
    if request.param == "probe":
        linear = np.random.default_rng(0).normal(0, 1, (40, 3)).astype(np.float32), np.zeros(3)
        whole = Deployable(tiny_backbone, 3).fill({}, linear=linear)
    return export.portable(whole, View(0.875))


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 200, (40, 1, 1, 3))
    return (colours + rng.integers(0, 56, (40, SIDE, SIDE, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def expected(network, pixels):
    return predict(network, pixels)


def answers(file, pixels):
    run = export.runner(file)
    return np.concatenate([run(image[None]) for image in pixels])


def test_a_float_file_gives_the_networks_probabilities(network, pixels, expected, tmp_path):
    assert np.ptp(expected, axis=0).max() > 0.01, "images differ for the network"
    export.write("litert_float", network, tmp_path / "model.tflite", pixels)
    np.testing.assert_allclose(answers(tmp_path / "model.tflite", pixels), expected, atol=1e-5)


def test_an_int8_file_takes_bytes_as_they_are_and_has_no_other_operation(
    network, pixels, expected, tmp_path
):
    file = tmp_path / "model.tflite"
    export.write("litert_int8", network, file, pixels)
    interpreter = Interpreter(model_path=str(file))
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    assert (entry["dtype"], entry["quantization"]) == (np.uint8, (1.0, 0))
    assert list(entry["shape"]) == [1, SIDE, SIDE, 3]
    kinds = [tensor["dtype"] for tensor in interpreter.get_tensor_details()]
    assert kinds.count(np.float32) == 1, "the probabilities alone"
    gap = np.abs(answers(file, pixels) - expected).max()
    assert 1e-5 < gap < 0.05, "rounded, and not more"


# tf2onnx, on import, of a name that NumPy 2 dropped.
@pytest.mark.filterwarnings("ignore:In the future `np:FutureWarning")
def test_an_onnx_file_gives_the_networks_probabilities(network, pixels, expected, tmp_path):
    for name in export.ONNX_PACKAGES:
        pytest.importorskip(name)
    export.write("onnx_float", network, tmp_path / "model.onnx", pixels)
    np.testing.assert_allclose(answers(tmp_path / "model.onnx", pixels), expected, atol=1e-5)


def test_what_onnx_needs_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "tf2onnx" else name)
    with pytest.raises(UserError, match=r"needs tf2onnx, which .*pip install onnx==\S+ tf2onnx=="):
        export.check_format("onnx")


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


@pytest.fixture
def kept(with_champion, copy_store, tmp_path):
    return copy_store(with_champion.folder, tmp_path / "store")


def run_of(store):
    version = Registry(store.client(), "nutclf").at(CHAMPION)
    return store.client().get_run(version.run_id)


def test_files_figures_and_the_opening_are_on_the_champions_run(kept, tmp_path, load_split):
    class Unlabelled:
        """A split that cannot tell its labels."""

        def __init__(self, split, size):
            self.pixels = load_split(split, size).pixels

    before, out = run_of(kept).data.tags, tmp_path / "exports"
    fingerprint = before["data_fingerprint"]
    said = []
    floats, ints = export_champion(
        kept, "nutclf", "litert", out, Unlabelled, fingerprint, said.append
    )
    run = run_of(kept)
    assert int(run.data.tags["test_openings"]) == int(before["test_openings"]) + 1
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
    assert facts["model"] == run.info.run_name
    assert said == [f"One view (1) and no blend: {run.info.run_name}", floats.line(), ints.line()]


def test_other_data_than_the_champions_are_refused_before_they_are_read(kept, tmp_path):
    with pytest.raises(UserError, match=r"was trained on data with fingerprint .* DATA="):
        export_champion(kept, "nutclf", "litert", tmp_path / "out", None, "f" * 64, print)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told_before_any_data_are_read(kept, tmp_path):
    (tmp_path / "file").write_text("")
    fingerprint = run_of(kept).data.tags["data_fingerprint"]
    with pytest.raises(UserError, match=r"cannot be written .*OUT="):
        export_champion(kept, "nutclf", "litert", tmp_path / "file", None, fingerprint, print)
