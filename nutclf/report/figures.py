"""The charts of a study: the search as it went, and the best trial's training."""

from collections.abc import Sequence

import pandas as pd

from nutclf.report.charts import Chart, Series, chart
from nutclf.track.study_records import StudyRecord
from nutclf.track.trial_records import TrialRecord


def history_chart(record: StudyRecord) -> Chart:
    """The objective of each finished trial in the order of the search, and the best so far."""
    finished = [trial for trial in record.trials if trial.value is not None]
    values = [(trial.number, trial.value) for trial in finished]
    titles = [f"{trial.name}: {trial.value:.4f}" for trial in finished]
    last = max(trial.number for trial in record.trials)
    best = _best_so_far(finished, record)
    best.append((last, best[-1][1]))
    series = [
        Series("best so far", "best", best, steps=True),
        Series("trial", "dot", values, titles),
    ]
    return chart(record.objective.metric, "trial", series)


def training_charts(curves: pd.DataFrame, best_epoch: int | None) -> list[Chart]:
    """Loss, accuracy and learning rate by epoch, of what was recorded of them.

    Args:
      curves: one row an epoch, its number the index.
      best_epoch: the one that was kept; None where it is not known.
    """
    charts = []
    for what in ("loss", "accuracy"):
        series = [
            Series(name, look, _points(curves, f"{split}_{what}"))
            for split, name, look in (("train", "training", "train"), ("valid", "validation", ""))
            if f"{split}_{what}" in curves
        ]
        kept = [point for point in _points(curves, f"valid_{what}") if point[0] == best_epoch]
        titles = [f"kept: epoch {x}, {y:.4f}" for x, y in kept]
        series += [Series("kept", "dot", kept, titles)] if kept else []
        charts += [chart(what, "epoch", series)] if series else []
    if rates := _points(curves, "learning_rate"):
        charts.append(chart("learning rate", "epoch", [Series("learning rate", "", rates)]))
    return charts


def _points(curves: pd.DataFrame, column: str) -> list[tuple[int, float]]:
    if column not in curves:
        return []
    return [(int(epoch), float(value)) for epoch, value in curves[column].dropna().items()]


def _best_so_far(finished: Sequence[TrialRecord], record: StudyRecord) -> list[tuple[float, float]]:
    best: list[tuple[float, float]] = []
    for trial in finished:
        if not best or record.objective.better_than(trial.value, best[-1][1]):
            best.append((trial.number, trial.value))
    return best
