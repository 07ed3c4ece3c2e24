"""The tables of a study's page as rows of text: the ranking, what was searched, the matrices."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from nutclf.config import RANGES
from nutclf.evaluate.intervals import Rate
from nutclf.track.study_records import StudyRecord
from nutclf.track.trial_records import RECIPE, TrialRecord

_SPLITS = {"cv": "out of fold", "valid": "valid", "test": "test"}


@dataclass(frozen=True)
class Ranked:
    """One line of the ranking.

    Attributes:
      trial: what it is.
      name: short; the recipe stands in its own columns.
      recipe: its searched values as text, in the order of the heading.
      low, mid, high: accuracy and its interval, percent of the width of the column.
    """

    trial: TrialRecord
    name: str
    recipe: tuple[str, ...]
    low: float
    mid: float
    high: float


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix to show.

    Attributes:
      split: for people.
      rate: the accuracy.
      classes: in order.
      rows: counts with their share of the row, 0 to 1.
    """

    split: str
    rate: Rate
    classes: list[str]
    rows: list[list[tuple[int, float]]]


def searched(record: StudyRecord) -> dict[str, str]:
    """What the study searched, by parameter; what had one choice only is left out."""
    spaces = {name: _values(record.params.get(f"space.{name}", "")) for name in RECIPE}
    return {name: _space(name, values) for name, values in spaces.items() if len(set(values)) > 1}


def fixed(record: StudyRecord) -> dict[str, str]:
    """What all trials share: settings of the study, without the space."""
    return {
        name: value
        for name, value in record.params.items()
        if not name.startswith(("space.", "name"))
        and name.removeprefix("baseline.") not in searched(record)
    }


def ranking(record: StudyRecord, most: int) -> list[Ranked]:
    """The best `most` trials; their intervals share one axis."""
    trials, names = record.ranking[:most], list(searched(record))
    ends = [end for trial in trials for end in trial.accuracy.interval]
    low, width = min(ends), (max(ends) - min(ends)) or 1

    def at(share: float) -> float:
        return round(100 * (share - low) / width, 1)

    return [
        Ranked(
            trial,
            f"t{trial.number:03d}",
            tuple(short(trial.recipe.get(name, "")) for name in names),
            at(trial.accuracy.interval[0]),
            at(trial.accuracy.share),
            at(trial.accuracy.interval[1]),
        )
        for trial in trials
    ]


def matrix(split: str, record: Mapping) -> Matrix:
    """A stored matrix as rows of cells."""
    counts = record["matrix"]
    right, n = sum(row[i] for i, row in enumerate(counts)), sum(map(sum, counts))
    rows = [[(count, count / (sum(row) or 1)) for count in row] for row in counts]
    return Matrix(_SPLITS[split], Rate(right, n), record["classes"], rows)


def short(text: str) -> str:
    """A number in three digits that count; other text as it is."""
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text


def _values(text: str) -> tuple:
    return ast.literal_eval(text) if text.startswith("(") else ()


def _space(name: str, values: tuple) -> str:
    shown = [short(str(value)) for value in values]
    if name in RANGES:
        return f"{shown[0]} to {shown[1]}" + (", log" if name == "learning_rate" else "")
    return ", ".join(shown)
