"""What a report is drawn from, and where it is kept."""

from dataclasses import replace

import pytest

from nutclf.audit.images import audit_folder
from nutclf.report.page import keep_page, read_evidence
from nutclf.track.runs import write_json
from nutclf.track.studies import read_study


@pytest.fixture
def promoted(with_champion, copy_store, tmp_path, tiny_config, source):
    """A copy of a promoted study: the store, and what it reads as."""
    store = copy_store(with_champion.folder, tmp_path / "store")
    config = replace(tiny_config, name="promoted")
    return store, read_study(store, "nutclf", config, source.data.fingerprint)


def test_the_evidence_is_what_the_best_trial_left(promoted, data_facts):
    store, record = promoted
    found = read_evidence(record)
    assert list(found.matrices) == ["valid", "test"]
    assert sum(map(sum, found.matrices["valid"]["matrix"])) == len(found.predictions) == 12
    assert found.curves.index.tolist() == [1, 2, 3]
    assert found.curves["valid_loss"].min() == pytest.approx(record.best.value)
    assert (found.gradcam, found.audit) == ((), None)
    with audit_folder(store, store.experiment_id("nutclf"), "promoted", data_facts) as (folder, _):
        write_json(folder / "audit.json", {"n_images": 48})
    assert read_evidence(record).audit == {"n_images": 48}


def test_a_page_is_kept_in_the_store_and_in_the_run(promoted):
    store, record = promoted
    path = keep_page(store, record, "<p>ä</p>")
    assert path == store.folder / "reports" / "promoted.html"
    assert path.read_text(encoding="utf-8") == "<p>ä</p>"
    (file,) = store.client().list_artifacts(record.run.run_id, "report")
    assert file.path == "report/report.html"
    keep_page(store, record, "again")
    assert path.read_text(encoding="utf-8") == "again"


@pytest.mark.parametrize("name", ["../../out", "a/b", "..", "/"])
def test_no_name_leads_out_of_the_store(promoted, name):
    store, record = promoted
    path = keep_page(store, replace(record, tags=record.tags | {"study_name": name}), "page")
    assert path.parent == store.folder / "reports"
    assert path.resolve() == path
