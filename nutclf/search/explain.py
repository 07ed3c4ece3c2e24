"""What makes a study's pages in MLflow speak for themselves, written once it is at rest."""

import dataclasses
import platform
from collections.abc import Mapping
from importlib.metadata import version

from nutclf.config import StudyConfig
from nutclf.data.source import DataSource
from nutclf.search.plots import write_plots
from nutclf.search.session import EXPERIMENTS, Say
from nutclf.search.study import find_study
from nutclf.track.notes import write_experiment_note, write_study_note
from nutclf.track.pictures import record_gradcam, record_mistakes
from nutclf.track.registry import model_uri
from nutclf.track.runs import Run
from nutclf.track.store import Store
from nutclf.track.study_records import StudyRecord, read_study

_PACKAGES = ("tensorflow", "keras", "mlflow", "optuna", "scikit-learn", "pandas", "numpy")


def explain(
    store: Store, config: StudyConfig, source: DataSource, say: Say, command: str = ""
) -> None:
    """Brings notes, plots and pictures up to date; what goes wrong is said in one line.

    The trials are done and recorded by then, so nothing here may fail them.

    Args:
      store: of the records.
      config: of the study, with a finished trial.
      source: of the images.
      say: takes lines for a person.
      command: that made the trials; "" where none were made now.
    """
    try:
        _explain(store, config, source, command)
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        say(f"Notes and pictures of study {config.name!r} are not up to date: {reason}.")


def _explain(store: Store, config: StudyConfig, source: DataSource, command: str) -> None:
    experiment, root = EXPERIMENTS[source.kind], source.folder.root
    record = read_study(store, experiment, config, source.folder.fingerprint)
    if command:
        origin = {"command": command, "versions": _versions()}
        record.run.tags(origin)
        record = dataclasses.replace(record, tags=record.tags | origin)
    left_out = _log_plots(store, record)
    record_mistakes(record.best_run, record.judged_on, root)
    if record.versions:
        run = Run(record.run.client, record.versions[0].run_id)
        uri = model_uri(run.client, run.client.get_run(run.run_id))
        record_gradcam(store, run, uri, root)
    write_experiment_note(store, experiment, source.kind)
    write_study_note(record, left_out)


def _log_plots(store: Store, record: StudyRecord) -> Mapping[str, str]:
    with record.run.artifacts() as root:
        folder = root / "optuna"
        folder.mkdir()
        return write_plots(find_study(store, record.name), record.objective, folder)


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"Python {platform.python_version()}, {packages}"
