"""What makes a study's pages in MLflow speak for themselves, written once it is at rest."""

import dataclasses
import platform
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import optuna

from nutclf.config import Objective, StudyConfig
from nutclf.data.source import DataSource
from nutclf.track.store import EXPERIMENTS

from collections.abc import Callable
Say = Callable[[str], None]
from nutclf.search.study import find_study, n_complete
from nutclf.track.notes import write_experiment_note, write_study_note
from nutclf.track.pictures import record_gradcam, record_mistakes
from nutclf.track.registry import model_uri
from nutclf.track.runs import Run
from nutclf.track.store import Store
from nutclf.track.studies import StudyRecord, read_study

FEWEST, FEWEST_TO_WEIGH = 2, 5
"""COMPLETE trials below which nothing can be compared, and no parameter weighed."""


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of each parameter in how far the best trials stand out, the largest first.

    By PED-ANOVA (S. Watanabe et al., IJCAI 2023), Optuna's own choice.

    Returns:
      Shares that sum to 1; nothing where there are too few trials to tell.
    """
    if n_complete(study) < FEWEST_TO_WEIGH:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Optuna then calls all of them equal
        try:
            return optuna.importance.get_param_importances(study)
        except (UserWarning, ValueError, RuntimeError):
            return {}


def write_plots(study: optuna.Study, objective: Objective, folder: Path) -> dict[str, str]:
    """Writes Optuna's plots as pages that need no network, plotly.js (4.8 MB) inside each.

    Args:
      study: of any number of trials.
      objective: names the axis.
      folder: gets `history.html`, `importances.html`, `parallel_coordinate.html` and `slice.html`.

    Returns:
      File name of each plot that was left out, and a sentence why.
    """
    if (n := n_complete(study)) < FEWEST:
        return dict.fromkeys(_PLOTS, f"{n} finished trial(s); it takes {FEWEST} to compare.")
    left_out = {}
    for name, draw in _PLOTS.items():
        if draw is _importances and not importances(study):
            left_out[name] = f"{n} finished trials are too few to tell which parameter counts."
            continue
        page = draw(study, objective.metric).to_html(include_plotlyjs=True, full_html=True)
        (folder / name).write_text(page, encoding="utf-8")
    return left_out


def _history(study: optuna.Study, metric: str):
    return optuna.visualization.plot_optimization_history(study, target_name=metric)


def _importances(study: optuna.Study, metric: str):
    return optuna.visualization.plot_param_importances(study, target_name=metric)


def _parallel(study: optuna.Study, metric: str):
    return optuna.visualization.plot_parallel_coordinate(study, target_name=metric)


def _slice(study: optuna.Study, metric: str):
    return optuna.visualization.plot_slice(study, target_name=metric)


_PLOTS: dict[str, Callable] = {
    "history.html": _history,
    "importances.html": _importances,
    "parallel_coordinate.html": _parallel,
    "slice.html": _slice,
}


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
    experiment, root = EXPERIMENTS[source.kind], source.data.root
    record = read_study(store, experiment, config, source.data.fingerprint)
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
