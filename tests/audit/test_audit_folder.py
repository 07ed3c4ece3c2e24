"""Where an audit is kept: its study's run, and a folder of the store."""

from dataclasses import replace

import pytest

from nutclf.audit.images import audit_folder, check_same_data
from nutclf.errors import UserError
from nutclf.track.runs import Run, study_run, trial_run


@pytest.fixture
def keep(store, data_facts):
    """Keeps an audit that is one file; gives where its copy lies."""

    def keep(study="tiny", text="found", data=data_facts):
        with audit_folder(store, store.experiment_id("nutclf"), study, data) as (folder, copy):
            (folder / "audit.json").write_text(text, encoding="utf-8")
        return copy

    return keep


@pytest.fixture
def parents(store):
    """All runs of the store that are a study's."""

    def parents():
        found = store.client().search_runs([store.experiment_id("nutclf")])
        return [run for run in found if run.data.tags["kind"] == "study"]

    return parents


def test_the_files_are_artifacts_of_the_study_and_lie_in_the_store(keep, parents, store):
    copy = keep()
    (parent,) = parents()
    (file,) = store.client().list_artifacts(parent.info.run_id, "audit")
    assert file.path == "audit/audit.json"
    assert copy == store.folder / "audit" / "tiny"
    assert (copy / "audit.json").read_text(encoding="utf-8") == "found"


def test_a_run_that_was_made_for_it_is_left_at_rest(keep, parents, data_facts):
    keep()
    (parent,) = parents()
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["data_fingerprint"] == data_facts.fingerprint


def test_the_run_of_a_sweep_is_used_and_stays_as_it_is(keep, parents, store, data_facts):
    study = study_run(store, store.experiment_id("nutclf"), "tiny", data_facts.tags)
    trial = trial_run(study, "t000", 0, data_facts.tags)
    keep()
    (parent,) = parents()
    assert (parent.info.run_id, parent.info.status) == (study.run_id, "RUNNING")
    Run(store.client(), trial.run_id).end("COMPLETE")
    study.close("FINISHED")
    ended = parents()[0].info.end_time
    keep()
    assert parents()[0].info.end_time == ended


def test_a_second_audit_replaces_the_first(keep, store, parents):
    keep(text="much was found")
    copy = keep(text="little")
    assert (copy / "audit.json").read_text(encoding="utf-8") == "little"
    path = store.client().download_artifacts(parents()[0].info.run_id, "audit/audit.json")
    with open(path, encoding="utf-8") as file:
        assert file.read() == "little"


@pytest.mark.parametrize("study", ["../../out", "a/b", "..", "/"])
def test_no_name_leads_out_of_the_store(keep, store, study):
    copy = keep(study)
    assert copy.parent == store.folder / "audit"
    assert (copy / "audit.json").exists()
    assert copy.resolve() == copy


def test_trials_on_other_data_refuse_the_audit(store, data_facts):
    experiment, others = store.experiment_id("nutclf"), replace(data_facts, fingerprint="f" * 64)
    study = study_run(store, experiment, "tiny", data_facts.tags)
    check_same_data(store, experiment, "tiny", others)  # no trial yet: images may be mended
    trial_run(study, "t000", 0, data_facts.tags)
    check_same_data(store, experiment, "tiny", data_facts)
    check_same_data(store, experiment, "another", others)
    with pytest.raises(UserError, match=r"'tiny' was begun on .* and these have ffff.*NAME="):
        check_same_data(store, experiment, "tiny", others)


def test_images_mended_between_audits_are_the_run_s_from_then_on(keep, parents, data_facts):
    keep()
    keep(data=replace(data_facts, fingerprint="f" * 64))
    assert parents()[0].data.tags["data_fingerprint"] == "f" * 64
