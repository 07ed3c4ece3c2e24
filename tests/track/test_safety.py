"""Only what is meant is opened: no program that lies in a store is run by a verb."""

import json
import os
import pickle
import sys
import zipfile
from dataclasses import replace

import keras
import pytest
from mlflow.pyfunc import load_model as load_pyfunc

from nutclf.errors import UserError
from nutclf.serve.answers import answer_files, open_champion
from nutclf.serve.server import application
from nutclf.track.models import load_metadata, load_model
from nutclf.track.promotion import promote
from nutclf.track.registry import CHAMPION, Registry

CHAMPION_URI = "models:/nutclf@champion"
SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """The folder that a payload makes when it runs."""
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "executed"))
    monkeypatch.setenv(SERVING, "")  # MLflow's scoring server sets it, and leaves it
    monkeypatch.delenv(SERVING)
    monkeypatch.setattr(sys, "path", list(sys.path))  # `load_pyfunc` puts a model's code there
    return tmp_path / "executed"


class Payload:
    """A pickle that makes a folder as it is opened."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def lambda_layer(file, executed):
    """A network whose first layer is Python code, which runs as the network is opened."""
    pixels = keras.Input((None, None, 3))
    code = keras.layers.Lambda(
        lambda x: (__import__("os").makedirs(__import__("os").environ["PAYLOAD"]), x)[1]
    )
    hidden = keras.layers.GlobalAveragePooling2D()(code(pixels))
    model = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(hidden))
    executed.rmdir()  # it was made while the network was put together
    model.save(file)


def foreign_class(file, executed):
    """The network as it was, but one of its layers is a function of Python's library."""
    config = json.loads(zipfile.ZipFile(file).read("config.json"))
    layer = config["config"]["layers"][-1]
    layer |= {"module": "os", "class_name": "mkdir", "registered_name": "mkdir"}
    layer["config"] = {"path": str(executed)}
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(f"{file}.new", "w") as new:
        for name in old.namelist():
            content = json.dumps(config) if name == "config.json" else old.read(name)
            new.writestr(name, content)
    os.replace(f"{file}.new", file)


def pickled_network(file, executed):
    """A pickle under the network's name."""
    file.write_bytes(pickle.dumps(Payload(executed)))


PAYLOADS = pytest.mark.parametrize("spoil", [lambda_layer, foreign_class, pickled_network])


@PAYLOADS
def test_predict_refuses_a_network_that_is_a_program(kept, model, executed, nuts, spoil):
    spoil(model / "data" / "model.keras", executed)
    with pytest.raises(UserError, match="is not opened, as its files are not those"):
        list(answer_files(kept, "nutclf", [nuts / "test"]))
    assert not executed.exists()


@PAYLOADS
def test_promote_refuses_it_too_and_the_alias_stays(
    kept, model, executed, spoil, tiny_config, load_split, source
):
    before = Registry(kept.client(), "nutclf").at(CHAMPION).version
    spoil(model / "data" / "model.keras", executed)
    config = replace(tiny_config, name="promoted")
    fingerprint = source.data.fingerprint
    with pytest.raises(UserError, match="is not opened, as its files are not those"):
        promote(kept, "nutclf", config.name, config.objective, load_split, fingerprint, dict)
    assert not executed.exists()
    assert Registry(kept.client(), "nutclf").at(CHAMPION).version == before


def test_the_payloads_run_where_they_are_allowed_to(executed, tmp_path):
    """Otherwise the tests above say nothing."""
    lambda_layer(tmp_path / "model.keras", executed)
    keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    assert executed.exists()
    executed.rmdir()
    pickle.loads(pickle.dumps(Payload(executed)))
    assert executed.exists()


def test_pickles_beside_the_network_are_not_opened(kept, model, executed, nuts):
    """Under the names that MLflow gives them, and named in its MLmodel file."""
    for name in ("custom_objects.cloudpickle", "python_model.pkl", "model.pkl"):
        for folder in (model, model / "data"):
            (folder / name).write_bytes(pickle.dumps(Payload(executed)))
    description = model / "MLmodel"
    text = description.read_text()
    description.write_text(
        text.replace("flavors:", "flavors:\n  sklearn:\n    pickled_model: model.pkl").replace(
            "loader_module: nutclf.serve.photographs",
            "loader_module: mlflow.pyfunc.model\n    python_model: python_model.pkl",
        )
    )
    assert text != description.read_text()
    answers = list(answer_files(kept, "nutclf", [nuts / "test"]))
    assert len(answers) == 12
    assert not executed.exists()


def test_a_loader_that_lies_in_the_store_is_not_run(kept, model, executed, nuts):
    """MLflow's own server imports what the MLmodel file names, from the model's own folder."""
    program = f"import os\nos.mkdir({str(executed)!r})\n"
    (model / "code" / "foreign_loader.py").write_text(program)
    description = model / "MLmodel"
    text = description.read_text()
    assert "loader_module: nutclf.serve.photographs" in text
    description.write_text(text.replace("nutclf.serve.photographs", "foreign_loader"))
    application(open_champion(kept, "nutclf"))
    assert not executed.exists()
    with pytest.raises(AttributeError, match="_load_pyfunc"):
        load_pyfunc(str(model))
    assert executed.exists(), "otherwise this says nothing"


def test_another_network_than_the_safe_one_is_not_followed(kept, model, nuts):
    """MLflow's own loader would open a SavedModel, a program, when the MLmodel file says so."""
    description = model / "MLmodel"
    text = description.read_text()
    assert "save_exported_model: false" in text
    description.write_text(text.replace("save_exported_model: false", "save_exported_model: true"))
    (model / "data" / "model").mkdir()
    assert isinstance(load_model(kept, CHAMPION_URI), keras.Model)


def test_a_description_that_calls_a_function_is_refused(kept, model, executed):
    """YAML can name one."""
    text = (model / "MLmodel").read_text()
    (model / "MLmodel").write_text(f"{text}\nx: !!python/object/apply:os.mkdir ['{executed}']\n")
    with pytest.raises(UserError, match="is not opened"):
        load_metadata(kept, CHAMPION_URI)
    assert not executed.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address")
def test_the_ui_is_reached_from_this_machine_only(store, free_port, answers_at, ui_at):
    """127.0.0.2 leads here as well, but only to what listens on every address."""
    port = free_port()
    with ui_at(store, port):
        assert not answers_at("127.0.0.2", port)
    assert not answers_at("127.0.0.1", port), "the server's processes end with it"
