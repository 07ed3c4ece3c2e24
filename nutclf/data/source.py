"""Where the images come from: the photographs if they can be had, else drawings, and it says so."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nutclf.data import drawn
from nutclf.data.corrections import correct
from nutclf.data.folder import DataSet, scan
from nutclf.data.kaggle import DataUnavailable, fetch
from nutclf.errors import UserError

LOCAL_FOLDER = "data/tree-nuts"
NUTS, DRAWN = "nutclf", "nutclf-drawn"
"""Experiment, and registered model, of the tree nuts and of drawings."""


@dataclass(frozen=True)
class DataSource:
    """A data set that was found and checked."""

    data: DataSet
    kind: Literal["photographs", "drawn"]
    origin: str  # a sentence for the banner: what this is, and where it came from
    name: str = ""  # given by a person, see `model`
    corrected: bool = False  # by a person's table

    @property
    def root(self) -> Path:
        """The folder on disk, absolute."""
        return self.data.root

    @property
    def model(self) -> str:
        """Name of experiment and registered model: records of two data sets never mix.

        Other images than tree nuts have the name of their folder.
        """
        if self.name or self.kind == "drawn":
            return self.name or DRAWN
        if set(self.data.classes) <= set(drawn.KINDS):
            return NUTS
        return re.sub(r"[^\w-]+", "-", self.root.name.lower()).strip("-")[:100] or "images"

    def corrected_by(self, table: Path) -> "DataSource":
        """The source with a person's decisions, see `correct`."""
        data = correct(self.data, table)
        changed = data.fingerprint != self.data.fingerprint
        return replace(self, data=data, corrected=changed)


def resolve(data: str, *, environ: Mapping[str, str], workdir: Path) -> DataSource:
    """Finds the data set that `data` asks for: `auto`, `drawn` or a path.

    `auto` is the first there is of `$NUTCLF_DATA`, `data/tree-nuts/`, Kaggle and drawings. Paths
    start at `workdir`, whose `data/` keeps drawings. Raises `UserError` for a folder that is
    malformed or, if named, missing: only Kaggle out of reach makes `auto` use drawings.
    """
    if data == "drawn":
        return _drawn(workdir, "Drawn images, as asked for; they are no photographs.")
    if not data:
        raise UserError("The data set is ''; allowed: auto, drawn or the path of a folder.")
    if data != "auto":
        return _photographs(workdir / Path(data).expanduser(), "as asked for")
    if named := environ.get("NUTCLF_DATA"):
        try:
            return _photographs(workdir / Path(named).expanduser(), "from $NUTCLF_DATA")
        except UserError as error:
            raise UserError(f"NUTCLF_DATA is {named!r}. {error}") from error
    if (workdir / LOCAL_FOLDER).exists():
        return _photographs(workdir / LOCAL_FOLDER, f"found in {LOCAL_FOLDER}/")
    try:
        return _photographs(fetch(), "from Kaggle")
    except DataUnavailable as error:
        warning = "DRAWN IMAGES, NOT PHOTOGRAPHS: nothing measured on them holds for real nuts."
        advice = f"Or put train/, valid/ and test/ of photographs in {LOCAL_FOLDER}/."
        return _drawn(workdir, f"{warning} {error} {advice}")


def _photographs(root: Path, how: str) -> DataSource:
    data = scan(root)
    return DataSource(data, "photographs", f"Photographs in {data.root}, {how}.")


def _drawn(workdir: Path, origin: str) -> DataSource:
    return DataSource(scan(drawn.ensure(workdir / "data")), "drawn", origin)
