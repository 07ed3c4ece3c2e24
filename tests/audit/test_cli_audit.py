"""`audit` as people type it, and the leak that it finds, named again at promotion."""

import shutil

import pytest

from nutclf.track.store import Store


@pytest.fixture(scope="module")
def leaky(nuts, tmp_path_factory):
    """A test image is a training image."""
    root = shutil.copytree(nuts, tmp_path_factory.mktemp("leaky") / "nuts")
    shutil.copy(root / "train/pecans/3.png", root / "test/pecans/9.png")
    return root


@pytest.fixture(scope="module")
def promoted(cli, leaky, tmp_path_factory):
    """A sweep of one trial on these images, then an audit: both processes, and the store."""
    folder = tmp_path_factory.mktemp("promoted") / "store"
    settings = {"NUTCLF_STORE": folder}
    arguments = ("--study", "quick", "--data", leaky)
    sweep = cli("sweep", *arguments, "--weights", "random", "--trials", 1, **settings)
    return sweep, cli("audit", *arguments, **settings), folder


@pytest.mark.slow
def test_an_audit_prints_counts_findings_and_where_the_rest_is(promoted):
    _, audit, folder = promoted
    assert audit.returncode == 0, audit.stderr
    assert audit.stderr == ""
    lines = audit.stdout.splitlines()
    assert "49 images of 3 classes" in lines
    assert "  test/pecans/9.png is train/pecans/3.png: equal bytes" in lines
    assert lines[-1] == f"All of it, with a contact sheet: {folder}/audit/quick/"
    names = {path.name for path in (folder / "audit" / "quick").iterdir()}
    assert names == {"audit.json", "contact_sheet.png", "suspects.csv"}


@pytest.mark.slow
def test_the_leak_is_named_at_promotion_and_left_out(promoted):
    sweep, _, folder = promoted
    assert sweep.returncode == 0, sweep.stderr
    client = Store.at(folder, {}).client()
    experiment = client.get_experiment_by_name("nutclf").experiment_id
    (study,) = client.search_runs([experiment], "tags.kind = 'study'")
    assert len(client.list_artifacts(study.info.run_id, "audit")) == 3
    version = client.get_model_version_by_alias("nutclf", "champion")
    told = "without 1 of 13 test images that train or valid have too"
    for text in (sweep.stdout, version.description):
        assert f"{told} (test/pecans/9.png is train/pecans/3.png); with them " in text
    metrics = client.get_run(version.run_id).data.metrics
    assert metrics["test_accuracy"] * 12 == pytest.approx(round(metrics["test_accuracy"] * 12))
    assert metrics["test_leaks"] == 1
    assert "test_accuracy_with_leaks" in metrics


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--study", "nothing"), "Unknown study 'nothing'"),
        (("--study", "unknown"), "Unknown backbone 'resnet5'"),
        (("--study", "quick", "--data", "nowhere"), "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(cli, nuts, tmp_path, arguments, complaint):
    given = ("--data", nuts, *arguments)  # the last one counts
    done = cli("audit", *given, NUTCLF_STORE=tmp_path / "store")
    assert done.returncode == 2
    assert done.stderr.startswith("nutclf: ")
    assert done.stderr.count("\n") == 1
    assert complaint in done.stderr
    assert not (tmp_path / "store").exists()


def test_other_images_are_not_filed_under_a_study_that_has_trials(cli, promoted, nuts):
    *_, folder = promoted
    done = cli("audit", "--study", "quick", "--data", nuts, NUTCLF_STORE=folder)
    assert done.returncode == 2
    assert "NAME=" in done.stderr
    again = cli("audit", "--study", "quick", "--name", "n", "--data", nuts, NUTCLF_STORE=folder)
    assert again.returncode == 0, again.stderr
    assert (folder / "audit" / "n" / "audit.json").exists()
