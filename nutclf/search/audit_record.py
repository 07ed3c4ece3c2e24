"""What an audit found, and the three files that hold it: JSON, a table and a contact sheet."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nutclf.data.audit import FileAudit
from nutclf.data.duplicates import Pair
from nutclf.data.reader import read_image
from nutclf.track.runs import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_SUSPECTS, SHOWN_PAIRS = 24, 9
_TILE_SIDE = 224  # pixels of a picture on the contact sheet


@dataclass(frozen=True)
class LabelAudit:
    """Which labels are doubtful.

    Attributes:
      suspects: from `nutclf.evaluate.suspects.rank_suspects`, the surest first.
      n_images: whose labels were judged.
      judged_by: a phrase: which models.
      skipped: why no label was judged; "" when they were.
    """

    suspects: pd.DataFrame
    n_images: int
    judged_by: str
    skipped: str = ""


@dataclass(frozen=True)
class Audit:
    """All that was found.

    Attributes:
      root: folder of the data set.
      files: what the files show by themselves.
      labels: what models say of the labels.
      copy: folder of the records.
    """

    root: Path
    files: FileAudit
    labels: LabelAudit
    copy: Path


def write_audit(folder: Path, audit: Audit, tags: Mapping[str, str]) -> None:
    """Writes `audit.json`, `suspects.csv` and `contact_sheet.png`.

    Args:
      folder: to write into.
      audit: what was found.
      tags: what else the JSON says of the data.
    """
    labels = audit.labels
    suspects = {
        "judged_by": labels.judged_by,
        "skipped": labels.skipped,
        "n_images": labels.n_images,
        "suspects": labels.suspects.to_dict("records"),
    }
    record = {"root": str(audit.root), **tags, **audit.files.record(), "label_suspects": suspects}
    write_json(folder / "audit.json", record)
    labels.suspects.to_csv(folder / "suspects.csv", index=False, quoting=csv.QUOTE_NONNUMERIC)
    _draw(audit).savefig(folder / "contact_sheet.png")


def _draw(audit: Audit) -> Figure:
    from nutclf.evaluate.contact_sheet import Section, Tile, contact_sheet

    def pixels(path: str) -> np.ndarray:
        return read_image(audit.root / path, _TILE_SIDE)

    def suspect(row) -> tuple[Tile]:
        given, looks = f"labelled {row.label}", f"looks like {row.looks_like}"
        badge = f"{row.Index + 1}   {row.score:.4f}"
        return (Tile(pixels(row.path), given, looks, row.path, badge),)

    def pair(found: Pair) -> tuple[Tile, Tile]:
        (one, other), (first, second) = found.labels, (found.first, found.second)
        return (
            Tile(pixels(first), f"labelled {one}", found.how_like, first, alarming=False),
            Tile(pixels(second), f"labelled {other}", _alarm(found), second),
        )

    shown = audit.labels.suspects.head(SHOWN_SUSPECTS)
    pairs = drawable_pairs(audit.files)
    suspected = f"{len(shown)} of {len(audit.labels.suspects)}"
    twice = f"{min(len(pairs), SHOWN_PAIRS)} of {len(pairs)}"
    sections = (
        Section(
            f"Probable label errors, the surest first ({suspected})",
            audit.labels.skipped or "None found.",
            [suspect(row) for row in shown.itertuples()],
        ),
        Section(
            f"One picture in two splits, or under two labels ({twice})",
            "None found.",
            [pair(found) for found in pairs[:SHOWN_PAIRS]],
        ),
    )
    judged = audit.labels.judged_by
    detail = f"{audit.files.n_images} images of {len(audit.files.classes)} classes"
    detail += f" · labels of {audit.labels.n_images} judged by {judged}" if judged else ""
    return contact_sheet(sections, f"Audit of {audit.root.name}", detail)


def drawable_pairs(files: FileAudit) -> list[Pair]:
    """The pairs that are worse than waste, without those that cannot be decoded."""
    broken = {finding.path for finding in files.unreadable}
    return [
        pair
        for pair in files.pairs
        if (pair.across_splits or pair.labels_disagree) and not {pair.first, pair.second} & broken
    ]


def _alarm(pair: Pair) -> str:
    if pair.across_splits and pair.labels_disagree:
        return "two splits, two labels"
    return f"in {pair.splits[0]} and {pair.splits[1]}" if pair.across_splits else "two labels"
