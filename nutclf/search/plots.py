"""What Optuna makes of a study: which parameters counted, and its interactive plots."""

import warnings
from collections.abc import Callable
from pathlib import Path

import optuna

from nutclf.config import Objective
from nutclf.search.study import n_complete

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
