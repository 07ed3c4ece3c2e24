"""Where the images come from: the photographs if they can be had, else drawings, and it says so."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nutclf.data.folder import DataSet, scan
from nutclf.data.kaggle import DataUnavailable, fetch
from nutclf.errors import UserError

ENVIRONMENT_VARIABLE = "NUTCLF_DATA"
LOCAL_FOLDER = "data/tree-nuts"


@dataclass(frozen=True)
class DataSource:
    """A data set that was found and checked.

    Attributes:
      data: its classes and the table of its files.
      kind: photographs, or drawn; records of the two never mix.
      origin: a sentence for the banner: what this is, and where it came from.
    """

    data: DataSet
    kind: Literal["photographs", "drawn"]
    origin: str

    @property
    def root(self) -> Path:
        """The folder on disk, absolute."""
        return self.data.root


def resolve(data: str, *, environ: Mapping[str, str], workdir: Path) -> DataSource:
    """Finds the data set that `data` asks for.

    Args:
      data: `auto` (the first there is of `$NUTCLF_DATA`, `data/tree-nuts/`, Kaggle, drawings),
        `drawn`, or a path. Relative paths start at `workdir`.
      environ: the environment; an empty NUTCLF_DATA counts as none.
      workdir: the checkout; drawings are kept in its `data/`.

    Raises:
      UserError: a folder that was named, here or in NUTCLF_DATA, is missing or malformed. Only
        Kaggle out of reach makes `auto` fall back on drawings.
    """
    if data == "drawn":
        return _drawn(workdir, "Drawn images, as asked for; they are no photographs.")
    if not data:
        raise UserError("The data set is ''; allowed: auto, drawn or the path of a folder.")
    if data != "auto":
        return _photographs(workdir / Path(data).expanduser(), "as asked for")
    if named := environ.get(ENVIRONMENT_VARIABLE):
        try:
            return _photographs(workdir / Path(named).expanduser(), f"from ${ENVIRONMENT_VARIABLE}")
        except UserError as error:
            raise UserError(f"{ENVIRONMENT_VARIABLE} is {named!r}. {error}") from error
    if (workdir / LOCAL_FOLDER).exists():
        return _photographs(workdir / LOCAL_FOLDER, f"found in {LOCAL_FOLDER}/")
    try:
        return _photographs(fetch(), "from Kaggle")
    except DataUnavailable as error:
        return _drawn(
            workdir,
            f"DRAWN IMAGES, NOT PHOTOGRAPHS: nothing measured on them holds for real nuts. {error} "
            f"Or put train/, valid/ and test/ of photographs in {LOCAL_FOLDER}/.",
        )


def _photographs(root: Path, how: str) -> DataSource:
    data = scan(root)
    return DataSource(data, "photographs", f"Photographs in {data.root}, {how}.")


def _drawn(workdir: Path, origin: str) -> DataSource:
    from nutclf.data import drawn

    return DataSource(scan(drawn.ensure(workdir / "data")), "drawn", origin)
