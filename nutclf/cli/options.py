"""Options that verbs share."""

from typing import Annotated

import typer

StudyOption = Annotated[str, typer.Option(help="A file of experiments/, without .py.")]
NameOption = Annotated[str, typer.Option(help="Name of the study; the experiment's own if empty.")]
DataOption = Annotated[
    str,
    typer.Option(
        help="auto ($NUTCLF_DATA, data/tree-nuts, Kaggle, else drawn), drawn, or a folder "
        "train|valid|test/<class>/<image>."
    ),
]
ObjectiveOption = Annotated[
    str,
    typer.Option(
        help="cv (folds of the training split), valid (the published split), or auto: cv for "
        "photographs, valid for drawings."
    ),
]
StoreOption = Annotated[
    str, typer.Option(envvar="NUTCLF_STORE", help="Folder of the records.", show_default=True)
]


def store_hint(store: str) -> str:
    """What to add to a command to find the same records."""
    return "" if store == "mlruns" else f" STORE={store}"
