"""The audit of a study's images: what is wrong with files and labels, recorded and told."""

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from nutclf.audit.labels import LabelAudit, audit_labels
from nutclf.config import SPLITS, StudyConfig
from nutclf.data.corrections import DROP
from nutclf.data.duplicates import Pair, find_pairs, inspect, leaks_into_test
from nutclf.data.folder import DataSet, quote
from nutclf.data.reader import NOTHING, read_image
from nutclf.data.source import DataSource
from nutclf.errors import UserError
from nutclf.evaluate.contact_sheet import Section, Tile, contact_sheet
from nutclf.model.backbones import find_spec
from nutclf.track.runs import DataRecord, file_name, quoted, study_run, write_json
from nutclf.track.store import Store
from nutclf.train.feature_store import FeatureStore

FOLDER = "audit"
LONGEST = 2.0  # beyond this aspect a network sees less than half the picture, its centred square
USUAL_SHARE = 0.9  # where so many images have one size, another size is worth a look
SHOWN = 10  # lines of each kind on the terminal; `audit.json` has all of them
SHOWN_SUSPECTS, SHOWN_PAIRS = 24, 9  # on the contact sheet

Finding = dict[str, str]  # path: of a file; what: is wrong with it


@dataclass(frozen=True)
class FileAudit:
    """What the files of a data set show without any network."""

    n_images: int  # unreadable ones too
    classes: tuple[str, ...]  # in the order of the labels
    balance: dict[str, dict[str, int]]  # split -> class -> files
    notes: tuple[str, ...]  # what the listing left out
    unreadable: list[Finding]
    mistyped: list[Finding]  # the content is of another type than the name says
    odd: list[Finding]  # in size, aspect, mode or EXIF orientation; one row per oddity
    pairs: list[Pair]  # files that show the same thing, the most alike first
    leaks: dict[str, str]  # each test image that train or valid has too, and the likest there


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
    """Audits a data set; records `audit.json`, `suspects.csv` and a contact sheet with its study.

    Labels are judged in train and valid only: those of test meet a model at promotion. Raises
    `UserError` when the study was begun on other data, or the store cannot be written.
    """
    side, record = config.image_size or find_spec(config.backbone).image_size, DataRecord.of(source)
    experiment = store.prepare().experiment_id(source.model, source.data.classes)
    check_same_data(store, experiment, config.name, record)
    files = audit_files(source.data, side)
    labels = audit_labels(config, source.data, store, experiment, features, say)
    with audit_folder(store, experiment, config.name, record) as (folder, copy):
        audit, suspects = Audit(source.root, files, labels, copy), labels.suspects
        judged = vars(labels) | {"suspects": suspects.to_dict("records")}
        found = {"root": str(audit.root), **record.tags, **asdict(files), "label_suspects": judged}
        write_json(folder / "audit.json", found)
        table = to_decide(files, labels)
        table.to_csv(folder / "suspects.csv", index=False, quoting=csv.QUOTE_NONNUMERIC)
        _draw(audit, folder / "contact_sheet.png")
    return audit


def to_decide(files: FileAudit, labels: LabelAudit) -> pd.DataFrame:
    """What a person may decide on, a row each: path, label, proposed, reason.

    Images that two labels claim come first, and broken ones; then the doubtful labels, the surest
    first. What is proposed is a class, or "drop".
    """
    rows = []
    for pair in files.pairs:
        if pair.labels_disagree:
            (one, other), (of_one, of_other) = (pair.first, pair.second), pair.labels
            rows.append((one, of_one, of_other, f"{pair.how_like} with {other}"))
            rows.append((other, of_other, of_one, f"{pair.how_like} with {one}"))
    rows += [(found["path"], found["label"], DROP, found["what"]) for found in files.unreadable]
    for s in labels.suspects.itertuples():
        reason = f"looks like {s.looks_like} ({s.p_looks_like:.2f}, {s.label} {s.p_label:.2f})"
        rows.append((s.path, s.label, s.looks_like, reason))
    table = pd.DataFrame(rows, columns=["path", "label", "proposed", "reason"])
    return table.drop_duplicates("path", ignore_index=True)


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

    On leaving, its files become artifacts under `audit/` of the study's run, made when missing, and
    are copied into the store's folder; those of an earlier audit are replaced.
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


def audit_files(data: DataSet, side: int) -> FileAudit:
    """Findings on the files of a data set, for a network that takes squares of `side` pixels."""
    seen = inspect(data)
    seen["size"] = [f"{w} x {h}" for w, h in zip(seen["width"], seen["height"], strict=True)]
    sizes = seen["size"][seen["problem"] == ""].value_counts(normalize=True)
    usual = sizes.index[0] if sizes.max() >= USUAL_SHARE else ""
    counts = Counter(zip(seen["split"], seen["label"], strict=True))
    types, pairs = Image.registered_extensions(), find_pairs(seen)
    unreadable, mistyped, odd = [], [], []
    for file in seen.itertuples():
        named = types.get(Path(file.path).suffix.lower())  # a name may say nothing
        if named and file.format not in ("", named):
            mistyped.append({"path": file.path, "what": f"{file.format}, named as {named}"})
        if file.problem:
            unreadable.append({"path": file.path, "label": file.label, "what": file.problem})
        else:
            odd += [{"path": file.path, "what": what} for what in _oddities(file, side, usual)]
    balance = {split: {name: counts[split, name] for name in data.classes} for split in SPLITS}
    found = balance, data.notes, unreadable, mistyped, odd, pairs, leaks_into_test(pairs)
    return FileAudit(len(seen), data.classes, *found)


def _oddities(file, side: int, usual: str) -> list[str]:
    short, long = sorted((file.width, file.height))
    words = {
        f"size {file.size}: enlarged, the network takes {side} x {side}": short < side,
        f"size {file.size}: nearly all others are {usual}": usual not in ("", file.size),
        f"aspect {file.size}: the network sees the centred square only": long / short > LONGEST,
        f"mode {file.mode}: converted to RGB": file.mode != "RGB",
        NOTHING: file.plain,
        f"EXIF orientation {file.orientation}: turned upright when read": file.orientation != 1,
    }
    return [what for what, is_so in words.items() if is_so]


def _draw(audit: Audit, file: Path) -> None:
    def tile(path: str, label: str, verdict: str, badge: str = "", alarming: bool = True) -> Tile:
        pixels = read_image(audit.root / path, 224)
        return Tile(pixels, f"labelled {label}", verdict, path, badge, alarming)

    files, labels, twins = audit.files, audit.labels, []
    broken = {found["path"] for found in files.unreadable}
    pairs = [pair for pair in files.pairs if pair.across_splits or pair.labels_disagree]
    pairs = [pair for pair in pairs if broken.isdisjoint((pair.first, pair.second))]
    for pair in pairs[:SHOWN_PAIRS]:
        alarm = f"in {pair.splits[0]} and {pair.splits[1]}"
        if pair.labels_disagree:
            alarm = "two splits, two labels" if pair.across_splits else "two labels"
        first = tile(pair.first, pair.labels[0], pair.how_like, alarming=False)
        twins.append((first, tile(pair.second, pair.labels[1], alarm)))
    suspects = [
        (tile(s.path, s.label, f"looks like {s.looks_like}", f"{s.Index + 1}   {s.score:.4f}"),)
        for s in labels.suspects.head(SHOWN_SUSPECTS).itertuples()
    ]
    surest = f"the surest first ({len(suspects)} of {len(labels.suspects)})"
    twice = f"One picture in two splits, or under two labels ({len(twins)} of {len(pairs)})"
    nothing = labels.skipped or "None found."
    doubtful = Section(f"Probable label errors, {surest}", nothing, suspects)
    sections = doubtful, Section(twice, "None found.", twins)
    detail = f"{files.n_images} images of {len(files.classes)} classes"
    if labels.judged_by:
        detail += f" · labels of {labels.n_images} judged by {labels.judged_by}"
    contact_sheet(sections, f"Audit of {audit.root.name}", detail).savefig(file)


def audit_lines(audit: Audit) -> list[str]:
    """The findings for the terminal; the last line says where the full record is."""
    files, labels = audit.files, audit.labels
    across = [_same(pair) for pair in files.pairs if pair.across_splits]
    disagree = [_same(pair) for pair in files.pairs if pair.labels_disagree]
    equal = sum(pair.equal_bytes for pair in files.pairs)
    lines = [f"{files.n_images} images of {len(files.classes)} classes"]
    for split, counts in files.balance.items():
        least, most = min(counts, key=counts.get), max(counts, key=counts.get)
        each = f"{counts[least]} to {counts[most]} a class ({quote(least)}, {quote(most)})"
        more = each if counts[least] < counts[most] else ""
        lines.append(f"{f'  {split}':<36}{sum(counts.values()):>6}   {more}".rstrip())
    numbers = {
        "unreadable files": len(files.unreadable),
        "content is not what the name says": len(files.mistyped),
        "pairs of equal files": equal,
        "pairs of near duplicates": len(files.pairs) - equal,
        "  of all pairs: in two splits": len(across),
        "  of all pairs: under two labels": len(disagree),
        "odd size, shape, mode or rotation": len({found["path"] for found in files.odd}),
    }
    lines += [f"{what:<36}{count:>6}" for what, count in numbers.items()]
    if labels.judged_by:
        count, of_all = len(labels.suspects), f"of {labels.n_images} labels"
        lines.append(f"{'probable label errors':<36}{count:>6}   {of_all}")
    lists = {
        "Unreadable": _told(files.unreadable),
        "Content is not what the name says": _told(files.mistyped),
        "One picture in two splits": across,
        "One picture under two labels": disagree,
        "Odd": _told(files.odd),
        f"Probable label errors, the surest (0) first, by {labels.judged_by}": [
            f"{s.score:.4f}  {quote(s.label)}, looks like {quote(s.looks_like)}: {quote(s.path)}"
            for s in labels.suspects.itertuples()
        ],
    }
    for title, found in lists.items():
        if found:
            lines += ["", f"{title}:", *(f"  {line}" for line in found[:SHOWN])]
        if len(found) > SHOWN:
            lines.append(f"  and {len(found) - SHOWN} more")
    if files.leaks:
        listed = ", ".join(map(quote, sorted(files.leaks)))
        lines += ["", f"Left out of the test figures at promotion: {listed}"]
    skipped = [f"Labels were not judged: {labels.skipped}"] if labels.skipped else []
    return [*lines, "", *skipped, f"All of it, with a contact sheet: {audit.copy}/"]


def _told(findings: list[Finding]) -> list[str]:
    return [f"{quote(found['path'])}: {found['what']}" for found in findings]


def _same(pair: Pair) -> str:
    one, other = map(quote, pair.labels)
    more = f"; labels {one} and {other} disagree" if pair.labels_disagree else ""
    return f"{quote(pair.second)} is {quote(pair.first)}: {pair.how_like}{more}"
