"""The audit of a study's images: files, copies and labels, judged, recorded and told."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nutclf.audit.findings import FileAudit, Finding, audit_files
from nutclf.audit.labels import COLUMNS, held_out_by_study, held_out_quickly, rank_suspects
from nutclf.config import StudyConfig
from nutclf.data.duplicates import Pair, Seen, inspect
from nutclf.data.folder import quote
from nutclf.data.reader import read_image
from nutclf.data.source import DataSource
from nutclf.errors import UserError
from nutclf.model.backbones import find_spec
from nutclf.search.places import Places
from nutclf.search.session import EXPERIMENTS, Say, data_record
from nutclf.track.runs import (
    DataRecord,
    Run,
    file_name,
    quoted,
    running_trials,
    study_run,
    write_json,
)
from nutclf.track.store import Store
from nutclf.train.feature_store import FeatureStore

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


def audit_images(config: StudyConfig, source: DataSource, places: Places, say: Say) -> Audit:
    """Audits a data set and records it in the run of its study.

    Files of all splits are looked at and compared; labels are judged in train and valid only, as
    the test split's labels meet a model at promotion and not before.

    Args:
      config: of the study, as returned by `nutclf.search.session.for_data`.
      source: of the images.
      places: where to read and write.
      say: takes lines for a person.

    Raises:
      UserError: the study was begun on other data, or the store cannot be written.
    """
    side, data = find_spec(config.backbone).image_size, data_record(source)
    store = places.store.prepare()
    experiment = store.experiment_id(EXPERIMENTS[source.kind])
    check_same_data(store, experiment, config.name, data)
    seen = inspect(source.data)
    files = audit_files(source.data, seen, side)
    labels = _audit_labels(config, source, seen, places, say)
    with audit_folder(store, experiment, config.name, data) as (folder, copy):
        found = Audit(source.root, files, labels, copy)
        write_audit(folder, found, data.tags)
    return found


def _audit_labels(
    config: StudyConfig, source: DataSource, seen: Sequence[Seen], places: Places, say: Say
) -> LabelAudit:
    """Ranks labels by the study's own out-of-fold predictions, else by those of a quick model."""
    folder, store = source.data, places.store
    experiment = store.experiment_id(EXPERIMENTS[source.kind])
    try:
        held_out = held_out_by_study(store, experiment, config, folder.fingerprint)
        if held_out is None:
            say("Judging labels; the first time on these images it takes a minute.")
            features = FeatureStore(places.features, places.feature_budget_bytes, say)
            held_out = held_out_quickly(config, folder, seen, features)
    except UserError as error:  # without weights, say; what the files show stands all the same
        return LabelAudit(pd.DataFrame(columns=list(COLUMNS)), 0, "", str(error))
    suspects = rank_suspects(held_out.table, folder.classes)
    return LabelAudit(suspects, len(held_out.table), held_out.source)


SHOWN = 10
"""Lines of each kind; all are in `audit.json`."""


def audit_lines(audit: Audit) -> list[str]:
    """What a person reads; the full record is named in the last line."""
    files, labels = audit.files, audit.labels
    lines = [*_counts(audit)]
    lines += _listed("Unreadable", [_finding(found) for found in files.unreadable])
    lines += _listed("Content is not what the name says", [_finding(f) for f in files.mistyped])
    across = [pair for pair in files.pairs if pair.across_splits]
    lines += _listed("One picture in two splits", [_pair(pair) for pair in across])
    disagree = [pair for pair in files.pairs if pair.labels_disagree]
    lines += _listed("One picture under two labels", [_pair(pair) for pair in disagree])
    lines += _listed("Odd", [_finding(found) for found in files.odd])
    lines += _suspects(audit)
    if files.leaks:
        listed = ", ".join(map(quote, sorted(files.leaks)))
        lines += ["", f"Left out of the test figures at promotion: {listed}"]
    skipped = [f"Labels were not judged: {labels.skipped}"] if labels.skipped else []
    return [*lines, "", *skipped, f"All of it, with a contact sheet: {audit.copy}/"]


def _counts(audit: Audit) -> Iterator[str]:
    files, labels = audit.files, audit.labels
    pairs = files.pairs
    across = sum(pair.across_splits for pair in pairs)
    yield f"{files.n_images} images of {len(files.classes)} classes"
    for split, counts in files.balance.items():
        least, most = min(counts, key=counts.get), max(counts, key=counts.get)
        each = f"{counts[least]} to {counts[most]} a class ({quote(least)}, {quote(most)})"
        yield _row(f"  {split}", sum(counts.values()), each if counts[least] < counts[most] else "")
    yield _row("unreadable files", len(files.unreadable))
    yield _row("content is not what the name says", len(files.mistyped))
    equal = sum(pair.equal_bytes for pair in pairs)
    yield _row("pairs of equal files", equal)
    yield _row("pairs of near duplicates", len(pairs) - equal)
    yield _row("  of all pairs: in two splits", across)
    yield _row("  of all pairs: under two labels", sum(pair.labels_disagree for pair in pairs))
    yield _row("odd in size, shape, mode or turn", len({found.path for found in files.odd}))
    if labels.judged_by:
        judged = f"of {labels.n_images} labels"
        yield _row("probable label errors", len(labels.suspects), judged)


def _row(what: str, count: int, more: str = "") -> str:
    return f"{what:<36}{count:>6}   {more}".rstrip()


def _listed(title: str, found: Sequence[str]) -> list[str]:
    if not found:
        return []
    more = [f"  and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return ["", f"{title}:", *(f"  {line}" for line in found[:SHOWN]), *more]


def _finding(found: Finding) -> str:
    return f"{quote(found.path)}: {found.what}"


def _pair(pair: Pair) -> str:
    labels = f"; labels {quote(pair.labels[0])} and {quote(pair.labels[1])} disagree"
    told = labels if pair.labels_disagree else ""
    return f"{quote(pair.second)} is {quote(pair.first)}: {pair.how_like}{told}"


def _suspects(audit: Audit) -> list[str]:
    lines = [
        f"{row.score:.4f}  {quote(row.label)}, looks like {quote(row.looks_like)}: "
        f"{quote(row.path)}"
        for row in audit.labels.suspects.itertuples()
    ]
    title = f"Probable label errors, the surest (0) first, by {audit.labels.judged_by}"
    return _listed(title, lines)
