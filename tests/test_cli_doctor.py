"""`make doctor` as people type it: what it prints, how it exits, and that the store works then."""

import shutil
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


@pytest.fixture
def moved(with_champion, copy_store, tmp_path):
    """Folder of a store that was moved, and one of its files lies in the wrong place."""
    store = copy_store(with_champion.folder, tmp_path / "store")
    client = store.client()
    for run in client.search_runs([store.experiment_id("nutclf")], "tags.kind = 'study'"):
        client.set_terminated(run.info.run_id)  # no driver ended it
    (store.folder / "artifacts/nutclf/models" / f"m-{'0' * 32}").mkdir()
    return shutil.move(store.folder, tmp_path / "moved")


def test_found_then_repaired_then_nothing_and_the_champion_answers(cli, moved, nuts):
    found = cli("doctor", NUTCLF_STORE=moved)
    assert found.returncode == 1, found.stderr
    assert "moved: " in found.stdout
    assert found.stdout.splitlines()[-2:] == [
        "1 found, 0 repaired.",
        f"Repair 1 of them: make doctor FIX=1 STORE={moved}",
    ]
    repaired = cli("doctor", "--fix", NUTCLF_STORE=moved)
    assert repaired.returncode == 0, repaired.stderr
    assert repaired.stdout.splitlines()[-1] == "2 found, 2 repaired."
    assert "  repaired: " in repaired.stdout
    again = cli("doctor", "--fix", NUTCLF_STORE=moved)
    assert (again.returncode, again.stdout) == (0, "Nothing to repair.\n")
    answered = cli("predict", nuts / "test", NUTCLF_STORE=moved)
    assert answered.returncode == 0, answered.stderr
    assert len(answered.stdout.splitlines()) == 12
    assert found.stderr == repaired.stderr == again.stderr == ""


def test_what_no_doctor_can_repair_ends_in_1(cli, with_champion, copy_store, tmp_path):
    store = copy_store(with_champion.folder, tmp_path / "store")
    client, experiment = store.client(), store.experiment_id("nutclf")
    (study,) = client.search_runs([experiment], "tags.kind = 'study'")
    client.update_run(study.info.run_id, "RUNNING")
    done = cli("doctor", "--fix", NUTCLF_STORE=store.folder)
    assert done.returncode == 1, done.stderr
    assert "running: study 'promoted': 0 trials and 1 runs say RUNNING" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 found, 0 repaired."


def test_a_store_that_is_not_there_is_a_mistake(cli, tmp_path):
    done = cli("doctor", NUTCLF_STORE=tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("nutclf: There is no store ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()
