"""Tables that people keep of their images: paths, labels and, maybe, splits, in CSV."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nutclf.errors import UserError

_NAMES = {  # of columns, in any case; the first that is there counts
    "path": ["path", "paths", "filepath", "filepaths", "file", "filename", "image", "img"],
    "label": ["label", "labels", "class", "classname", "category", "target"],
    "split": ["split", "dataset", "set", "subset", "partition"],
    "decision": ["decision"],
}


def read_table(
    file: Path, needed: Sequence[str] = ("path", "label"), optional: Sequence[str] = ("split",)
) -> pd.DataFrame:
    """The rows of a table, text: the columns asked for, "" where an optional one is not there.

    Raises `UserError` when it cannot be read, or lacks a column that is needed.
    """
    try:
        with open(file, encoding="utf-8-sig") as opened:
            separator = max(",;\t", key=opened.readline().count)
            opened.seek(0)
            table = pd.read_csv(opened, sep=separator, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # of pandas' parser, too
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"The table {file} cannot be read: {reason}; give a CSV file.") from error
    usual = {re.sub(r"[\W_]", "", str(name)).lower(): name for name in table.columns}
    found = {}
    for column in (*needed, *optional):
        names = _NAMES[column]
        name = next((usual[name] for name in names if name in usual), None)
        if name is None and column in needed:
            raise UserError(
                f"The table {file} has no column of {column}s, which may be called "
                f"{', '.join(names)}; it has {', '.join(map(str, table.columns[:12]))}."
            )
        found[column] = "" if name is None else table[name].str.strip()
    return pd.DataFrame(found, index=table.index)
