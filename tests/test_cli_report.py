"""`report` as people type it: a page in the store and in MLflow, or one sentence."""

import pytest

from nutclf.track.store import Store


@pytest.fixture(scope="module")
def swept(cli, swept_once, copy_store, nuts, tmp_path_factory):
    """The store of a sweep of one trial; and what `report` printed after it."""
    original, done = swept_once
    assert done.returncode == 0, done.stderr
    assert "not up to date" not in done.stdout
    folder = copy_store(original, tmp_path_factory.mktemp("reported") / "store").folder
    return folder, cli("report", "--study", "quick", "--data", nuts, NUTCLF_STORE=folder)


@pytest.fixture
def study(swept):
    """The client of the store, and the run of the study."""
    client = Store.at(swept[0], {}).client()
    experiment = client.get_experiment_by_name("nutclf").experiment_id
    (run,) = client.search_runs([experiment], "tags.kind = 'study'")
    return client, run


def test_the_page_lies_in_the_store_and_its_path_is_printed(swept):
    folder, done = swept
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].endswith(f"{folder}/reports/quick.html")
    page = (folder / "reports" / "quick.html").read_text(encoding="utf-8")
    assert "there was none before" in page
    assert "make sweep STUDY=quick TRIALS=1 DATA=" in page
    assert page.count("data:image/jpeg") >= 12
    assert len(page) < 8_000_000


def test_the_page_is_an_artifact_of_the_study(swept, study):
    client, run = study
    path = client.download_artifacts(run.info.run_id, "report/report.html")
    with open(path, encoding="utf-8") as file:
        assert file.read() == (swept[0] / "reports" / "quick.html").read_text(encoding="utf-8")
    assert run.info.status == "FINISHED"


def test_a_sweep_leaves_its_note(study):
    _, run = study
    note = run.data.tags["mlflow.note.content"]
    assert run.data.tags["command"] in note
    assert run.data.tags["command"].endswith("WEIGHTS=random")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--study", "nothing"), "Unknown study 'nothing'"),
        (("--study", "quick"), "no finished trial"),
        (("--study", "quick", "--objective", "cv"), "'quick-cv' has no finished trial"),
    ],
)
def test_a_mistake_is_one_sentence(cli, nuts, tmp_path, arguments, complaint):
    store = tmp_path / "store"
    done = cli("report", "--data", nuts, *arguments, NUTCLF_STORE=store)
    assert done.returncode == 2
    assert done.stderr.startswith("nutclf: ")
    assert done.stderr.count("\n") == 1
    assert complaint in done.stderr
    assert not (store / "reports").exists()
