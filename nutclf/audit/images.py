"""The audit of a study's images: files, duplicates and labels, recorded and told."""

import csv
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nutclf.audit.findings import FileAudit, Finding, audit_files
from nutclf.audit.labels import LabelAudit, audit_labels
from nutclf.config import StudyConfig
from nutclf.data.duplicates import Pair, inspect
from nutclf.data.folder import quote
from nutclf.data.reader import read_image
from nutclf.data.source import DataSource
from nutclf.errors import UserError
from nutclf.model.backbones import find_spec
from nutclf.track.runs import DataRecord, file_name, quoted, study_run, write_json
from nutclf.track.store import EXPERIMENTS, Store
from nutclf.train.feature_store import FeatureStore

FOLDER = "audit"
SHOWN = 10
"""Lines of each kind on the terminal; `audit.json` has all of them."""
SHOWN_SUSPECTS, SHOWN_PAIRS = 24, 9  # on the contact sheet
_TILE_SIDE = 224  # pixels of a picture on the contact sheet


@dataclass(frozen=True)
class Audit:
    """All that was found."""

    root: Path  # of the data set
    files: FileAudit
    labels: LabelAudit
    copy: Path  # folder of the records


def audit_images(
    config: StudyConfig,
    source: DataSource,
    store: Store,
    features: FeatureStore,
    say: Callable[[str], None],
) -> Audit:
    """Audits a data set and records it in the run of its study.

    Files of all splits are looked at and compared; labels are judged in train and valid only, as
    the test split's labels meet a model at promotion and not before.

    Raises:
      UserError: the study was begun on other data, or the store cannot be written.
    """
    side, record = config.image_size or find_spec(config.backbone).image_size, DataRecord.of(source)
    experiment = store.prepare().experiment_id(EXPERIMENTS[source.kind])
    check_same_data(store, experiment, config.name, record)
    files = audit_files(source.data, inspect(source.data), side)
    labels = audit_labels(config, source.data, store, experiment, features, say)
    with audit_folder(store, experiment, config.name, record) as (folder, copy):
        found = Audit(source.root, files, labels, copy)
        write_audit(folder, found, record.tags)
    return found


def check_same_data(store: Store, experiment_id: str, study: str, data: DataRecord) -> None:
    """Raises `UserError` when the study has trials on other data."""
    others = f"tags.data_fingerprint != '{data.fingerprint}'"
    if found := _tags_of_trial(store, experiment_id, study, others):
        raise UserError(
            f"Study {study!r} was begun on data with fingerprint "
            f"{found['data_fingerprint'][:12]}, and these have {data.fingerprint[:12]}; "
            "give its own data with DATA=, or audit these under a name of their own with NAME=."
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
    # A study's run says RUNNING only while a sweep works on it.
    at_work = _tags_of_trial(store, experiment_id, study, "attributes.status = 'RUNNING'")
    if run.client.get_run(run.run_id).info.status == "RUNNING" and not at_work:
        run.close("FINISHED")


def _tags_of_trial(store: Store, experiment_id: str, study: str, which: str) -> dict[str, str]:
    """The tags of one of the study's trials that the filter fits; none where none does."""
    trials = f"tags.study_name = {quoted(study)} AND tags.kind = 'trial' AND {which}"
    found = store.client().search_runs([experiment_id], trials, max_results=1)
    return found[0].data.tags if found else {}


def write_audit(folder: Path, audit: Audit, tags: Mapping[str, str]) -> None:
    """Writes `audit.json`, with `tags` in it, `suspects.csv` and `contact_sheet.png`."""
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
    _draw(audit, folder / "contact_sheet.png")


def _draw(audit: Audit, file: Path) -> None:
    from nutclf.evaluate.contact_sheet import Section, Tile, contact_sheet

    def tile(path: str, label: str, verdict: str, badge: str = "", alarming: bool = True) -> Tile:
        pixels = read_image(audit.root / path, _TILE_SIDE)
        return Tile(pixels, f"labelled {label}", verdict, path, badge, alarming)

    def suspect(row) -> tuple[Tile]:
        badge = f"{row.Index + 1}   {row.score:.4f}"
        return (tile(row.path, row.label, f"looks like {row.looks_like}", badge),)

    def pair(found: Pair) -> tuple[Tile, Tile]:
        alarm = f"in {found.splits[0]} and {found.splits[1]}"
        if found.labels_disagree:
            alarm = "two splits, two labels" if found.across_splits else "two labels"
        first = tile(found.first, found.labels[0], found.how_like, alarming=False)
        return first, tile(found.second, found.labels[1], alarm)

    files, labels = audit.files, audit.labels
    shown = labels.suspects.head(SHOWN_SUSPECTS)
    broken = {finding.path for finding in files.unreadable}
    pairs = [
        found
        for found in files.pairs
        if (found.across_splits or found.labels_disagree)
        and broken.isdisjoint((found.first, found.second))
    ]
    suspected = f"({len(shown)} of {len(labels.suspects)})"
    twice = f"({min(len(pairs), SHOWN_PAIRS)} of {len(pairs)})"
    sections = (
        Section(
            f"Probable label errors, the surest first {suspected}",
            labels.skipped or "None found.",
            list(map(suspect, shown.itertuples())),
        ),
        Section(
            f"One picture in two splits, or under two labels {twice}",
            "None found.",
            list(map(pair, pairs[:SHOWN_PAIRS])),
        ),
    )
    detail = f"{files.n_images} images of {len(files.classes)} classes"
    if labels.judged_by:
        detail += f" · labels of {labels.n_images} judged by {labels.judged_by}"
    contact_sheet(sections, f"Audit of {audit.root.name}", detail).savefig(file)


def audit_lines(audit: Audit) -> list[str]:
    """The findings for the terminal; the last line says where the full record is."""
    files, labels = audit.files, audit.labels
    across = [pair for pair in files.pairs if pair.across_splits]
    disagree = [pair for pair in files.pairs if pair.labels_disagree]
    suspects = [
        f"{row.score:.4f}  {quote(row.label)}, looks like {quote(row.looks_like)}: "
        f"{quote(row.path)}"
        for row in labels.suspects.itertuples()
    ]
    lines = [
        *_counts(files, labels),
        *_listed("Unreadable", map(_finding, files.unreadable)),
        *_listed("Content is not what the name says", map(_finding, files.mistyped)),
        *_listed("One picture in two splits", map(_pair, across)),
        *_listed("One picture under two labels", map(_pair, disagree)),
        *_listed("Odd", map(_finding, files.odd)),
        *_listed(f"Probable label errors, the surest (0) first, by {labels.judged_by}", suspects),
    ]
    if files.leaks:
        listed = ", ".join(map(quote, sorted(files.leaks)))
        lines += ["", f"Left out of the test figures at promotion: {listed}"]
    skipped = [f"Labels were not judged: {labels.skipped}"] if labels.skipped else []
    return [*lines, "", *skipped, f"All of it, with a contact sheet: {audit.copy}/"]


def _counts(files: FileAudit, labels: LabelAudit) -> Iterator[str]:
    yield f"{files.n_images} images of {len(files.classes)} classes"
    for split, counts in files.balance.items():
        least, most = min(counts, key=counts.get), max(counts, key=counts.get)
        each = f"{counts[least]} to {counts[most]} a class ({quote(least)}, {quote(most)})"
        yield _row(f"  {split}", sum(counts.values()), each if counts[least] < counts[most] else "")
    pairs = files.pairs
    equal = sum(pair.equal_bytes for pair in pairs)
    yield _row("unreadable files", len(files.unreadable))
    yield _row("content is not what the name says", len(files.mistyped))
    yield _row("pairs of equal files", equal)
    yield _row("pairs of near duplicates", len(pairs) - equal)
    yield _row("  of all pairs: in two splits", sum(pair.across_splits for pair in pairs))
    yield _row("  of all pairs: under two labels", sum(pair.labels_disagree for pair in pairs))
    yield _row("odd size, shape, mode or rotation", len({found.path for found in files.odd}))
    if labels.judged_by:
        yield _row("probable label errors", len(labels.suspects), f"of {labels.n_images} labels")


def _row(what: str, count: int, more: str = "") -> str:
    return f"{what:<36}{count:>6}   {more}".rstrip()


def _listed(title: str, found: Iterator[str] | Sequence[str]) -> list[str]:
    found = list(found)
    more = [f"  and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return ["", f"{title}:", *(f"  {line}" for line in found[:SHOWN]), *more] if found else []


def _finding(found: Finding) -> str:
    return f"{quote(found.path)}: {found.what}"


def _pair(pair: Pair) -> str:
    labels = f"; labels {quote(pair.labels[0])} and {quote(pair.labels[1])} disagree"
    told = labels if pair.labels_disagree else ""
    return f"{quote(pair.second)} is {quote(pair.first)}: {pair.how_like}{told}"
