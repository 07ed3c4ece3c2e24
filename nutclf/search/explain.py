"""What makes a study's pages in MLflow readable by themselves, written after its trials."""

import dataclasses
import platform
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import optuna
from optuna import visualization

from nutclf.config import Objective, StudyConfig
from nutclf.data.source import DataSource
from nutclf.search.study import find_study, n_complete
from nutclf.track.notes import write_experiment_note, write_study_note
from nutclf.track.pictures import record_gradcam, record_mistakes
from nutclf.track.registry import model_uri
from nutclf.track.runs import Run
from nutclf.track.store import Store
from nutclf.track.studies import read_study

FEWEST, FEWEST_TO_WEIGH = 2, 20
"""COMPLETE trials needed to compare anything, and to weigh parameters."""

_PLOTS = {
    "history.html": visualization.plot_optimization_history,
    "importances.html": visualization.plot_param_importances,
    "parallel_coordinate.html": visualization.plot_parallel_coordinate,
    "slice.html": visualization.plot_slice,
}
_PACKAGES = ("tensorflow", "keras", "mlflow", "optuna", "scikit-learn", "pandas", "numpy")


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of each parameter in how far the best trials stand out, the largest first.

    By PED-ANOVA (S. Watanabe et al., IJCAI 2023), Optuna's default. Shares sum to 1; there are none
    with too few trials to tell.
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
    """Writes `_PLOTS` into `folder` as pages that need no network: each holds plotly.js, 4.8 MB.

    Returns the file name of each plot that was left out, and a sentence why.
    """
    if (n := n_complete(study)) < FEWEST:
        return dict.fromkeys(_PLOTS, f"{n} finished trial(s); it takes {FEWEST} to compare.")
    left_out = {}
    for name, draw in _PLOTS.items():
        if name == "importances.html" and not importances(study):
            left_out[name] = f"{n} finished trials are too few to tell which parameter counts."
            continue
        page = draw(study, target_name=objective.metric).to_html(include_plotlyjs=True)
        (folder / name).write_text(page, encoding="utf-8")
    return left_out


def explain(
    store: Store,
    config: StudyConfig,
    source: DataSource,
    say: Callable[[str], None],
    command: str = "",
) -> None:
    """Brings notes, plots and pictures up to date; what goes wrong is reported in one line.

    The trials are done and recorded by then, so nothing here may fail them. `command` made them; it
    is "" where none were made now.
    """
    try:
        _explain(store, config, source, command)
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        say(f"Notes and pictures of study {config.name!r} are not up to date: {reason}.")


def _explain(store: Store, config: StudyConfig, source: DataSource, command: str) -> None:
    experiment, root = source.model, source.root
    record = read_study(store, experiment, config, source.data.fingerprint)
    if command:
        packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
        origin = {"command": command, "versions": f"Python {platform.python_version()}, {packages}"}
        record.run.tags(origin)
        record = dataclasses.replace(record, tags=record.tags | origin)
    with record.run.artifacts() as folder:
        (folder / "optuna").mkdir()
        study = find_study(store, record.name)
        left_out = write_plots(study, record.objective, folder / "optuna")
    record_mistakes(record.best_run, record.judged_on, root)
    if record.versions:
        run = Run(record.run.client, record.versions[0].run_id)
        uri = model_uri(run.client, run.client.get_run(run.run_id))
        record_gradcam(store, run, uri, root)
    write_experiment_note(store, experiment, source.kind)
    write_study_note(record, left_out)
