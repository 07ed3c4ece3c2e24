"""`nutclf ladder` as people type it."""

import pytest

NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("arguments", "environ", "complaint"),
    [
        (("--backbone", "vgg15"), {}, "'vgg15'; keras.applications has convnextbase"),
        (("--data", "nowhere"), {}, "nowhere"),
        (("--backbone", "densenet169"), NO_NETWORK, "No weights for densenet169"),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_leaves_nothing(
    cli, nuts, tmp_path, arguments, environ, complaint
):
    data = () if "--data" in arguments else ("--data", nuts)
    store = tmp_path / "store"
    environ = environ | {"NUTCLF_STORE": store, "HOME": tmp_path, "NUTCLF_WEIGHTS": ""}
    done = cli("ladder", *arguments, *data, **environ)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert done.stderr.startswith("nutclf: ") and done.stderr.count("\n") == 1
    assert not (store / "mlflow.db").exists()


@pytest.mark.slow
def test_the_ladder_prints_each_rung_and_then_a_plain_markdown_table(cli, nuts, tmp_path):
    """With the weights that ship with the package, on photographs of a sort."""
    store = tmp_path / "store"
    environ = NO_NETWORK | {"NUTCLF_STORE": store, "HOME": tmp_path, "KERAS_HOME": tmp_path}
    done = cli("ladder", "--data", nuts, **environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "rung 1 left out: Keras could not fetch the 1000-class MobileNetV2" in done.stdout
    assert [line.split(":")[0] for line in lines if line.startswith("rung ")] == [
        "rung 1 left out", *(f"rung {number}" for number in range(2, 12)),
    ]  # fmt: skip
    assert any(line.startswith("| Rung | What ") for line in lines)
    assert "\x1b" not in done.stdout, "no colours in a pipe"
    assert lines[-1].startswith(f"Look at it:   make ui STORE={store}")
