"""`report` as people type it: a page in the store and in MLflow, or one sentence."""

from nutclf.track.store import Store


def test_the_page_lies_in_the_store_and_in_the_study_s_run(
    cli, swept_once, copy_store, nuts, tmp_path
):
    original, swept = swept_once
    assert swept.returncode == 0, swept.stderr
    assert "not up to date" not in swept.stdout
    store = copy_store(original, tmp_path / "store")
    done = cli("report", "--study", "quick", "--data", nuts, NUTCLF_STORE=store.folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith(f"{store.folder}/reports/quick.html")
    page = (store.folder / "reports" / "quick.html").read_text(encoding="utf-8")
    assert "there was none before" in page
    assert "make sweep STUDY=quick TRIALS=1 DATA=" in page
    assert page.count("data:image/jpeg") >= 12
    assert len(page) < 8_000_000

    client = Store.at(store.folder, {}).client()
    experiment = client.get_experiment_by_name("nutclf").experiment_id
    (run,) = client.search_runs([experiment], "tags.kind = 'study'")
    with open(client.download_artifacts(run.info.run_id, "report/report.html")) as file:
        assert file.read() == page
    assert run.info.status == "FINISHED"
    assert run.data.tags["command"].endswith("WEIGHTS=random")
    assert run.data.tags["command"] in run.data.tags["mlflow.note.content"]


def test_a_study_without_a_result_is_one_sentence(cli, nuts, tmp_path):
    store = tmp_path / "store"
    arguments = ("--study", "quick", "--objective", "cv")
    done = cli("report", "--data", nuts, *arguments, NUTCLF_STORE=store)
    assert done.returncode == 2
    assert done.stderr.startswith("nutclf: Study 'quick-cv' has no finished trial")
    assert done.stderr.count("\n") == 1
    assert not (store / "reports").exists()
