"""Where an audit of the images is kept: artifacts of its study's run, and a copy beside them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nutclf.errors import UserError
from nutclf.track.runs import DataRecord, Run, file_name, quoted, running_trials, study_run
from nutclf.track.store import Store

FOLDER = "audit"


def check_same_data(store: Store, experiment_id: str, study: str, data: DataRecord) -> None:
    """Refuses to put the audit of some images beside trials on others.

    Raises:
      UserError: the study has trials on other data.
    """
    found = store.client().search_runs(
        [experiment_id],
        f"tags.study_name = {quoted(study)} AND tags.kind = 'trial' "
        f"AND tags.data_fingerprint != '{data.fingerprint}'",
        max_results=1,
    )
    if found:
        seen = found[0].data.tags["data_fingerprint"]
        raise UserError(
            f"Study {study!r} was begun on data with fingerprint {seen[:12]}, and these have "
            f"{data.fingerprint[:12]}; give its own data with DATA=, or audit these under a name "
            "of their own with NAME=."
        )


@contextmanager
def audit_folder(
    store: Store, experiment_id: str, study: str, data: DataRecord
) -> Iterator[tuple[Path, Path]]:
    """A folder to fill, and where its copy will lie.

    On leaving, its files become artifacts under `audit/` of the study's run, which is made when
    missing, and are copied into the store's folder; those of an earlier audit are replaced.
    """
    run = study_run(store, experiment_id, study, data.tags)
    copy = store.folder / FOLDER / file_name(study)
    with run.artifacts() as root:
        folder = root / FOLDER
        folder.mkdir()
        yield folder, copy
        shutil.copytree(folder, copy, dirs_exist_ok=True)
    run.tags(data.tags)  # images may be mended between audits, as long as there is no trial
    _leave_at_rest(run)


def _leave_at_rest(run: Run) -> None:
    """A study's run says RUNNING only while a sweep works on it."""
    if run.client.get_run(run.run_id).info.status == "RUNNING" and not running_trials(run):
        run.close("FINISHED")
