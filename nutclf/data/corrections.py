"""A person's decisions on images of a data set: labels that change, images that are dropped."""

from dataclasses import replace
from pathlib import Path

from nutclf.config import SPLITS
from nutclf.data.folder import DataSet, agreed_classes, quote
from nutclf.data.table import read_table
from nutclf.errors import UserError

KEEP, DROP = "keep", "drop"


def correct(data: DataSet, file: Path) -> DataSet:
    """The data set as a table corrects it: another one, by its fingerprint. No file is changed.

    The table is a copy of the audit's `suspects.csv` with one more column, `decision`: keep, drop,
    or the name of another class; a row without a decision changes nothing. Raises `UserError` where
    a row fits no image, or a class would be left without images that it needs.
    """
    classes, name = data.classes, quote(str(file))
    if taken := {KEEP, DROP} & set(classes):
        raise UserError(
            f"{name} cannot decide on classes called {' and '.join(sorted(taken))}: these words are"
            " decisions; rename the classes."
        )
    labels = data.files.set_index("path")["label"].map(lambda label: classes[label])
    decided = {}
    table = read_table(file, needed=("path", "label", "decision"), optional=())
    for path, label, decision in table.itertuples(index=False):
        wrong, said = "", decision or KEEP
        if path not in labels.index:
            wrong = f"names {path!r}, which is no image of this data set"
        elif label != labels[path]:
            wrong = f"says that {path!r} is labelled {label!r}; the data set says {labels[path]!r}"
        elif said not in (KEEP, DROP, *classes):
            wrong = f"decides {said!r} on {path!r}"
        elif decision and decided.setdefault(path, said) != said:
            wrong = f"decides {decided[path]!r} and {said!r} on {path!r}"
        if wrong:
            raise UserError(
                f"{name} {wrong}. A row has path and label as `make audit` wrote them, and one "
                f"decision: nothing, {KEEP}, {DROP}, or a class ({', '.join(map(quote, classes))})."
            )
    moved = {path: to for path, to in decided.items() if to not in (KEEP, DROP, labels[path])}
    dropped = [path for path, to in decided.items() if to == DROP]
    labels.update(moved)
    files = data.files.assign(label=labels.to_numpy())
    files = files[~files["path"].isin(dropped)].reset_index(drop=True)
    did = f"{len(moved)} labels corrected and {len(dropped)} images dropped by {name}"
    notes = [*data.notes, did]
    try:
        agreed_classes(files, dict.fromkeys(SPLITS, classes), notes)
    except UserError as error:
        raise UserError(f"With {did}: {error}") from error
    files["label"] = files["label"].map(classes.index)
    return replace(data, files=files, notes=tuple(notes))
