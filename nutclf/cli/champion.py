"""Verbs about the champion: its answers, and its files for other machines."""

from pathlib import Path
from typing import Annotated

import typer

from nutclf.cli.opening import find_data, open_store, splits_of
from nutclf.cli.options import DataOption, StoreOption
from nutclf.cli.process import quiet, say
from nutclf.errors import UserError


def predict(
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    model: Annotated[str, typer.Option(help="Name of the registered model.")] = "nutclf",
    store: StoreOption = "mlruns",
) -> None:
    """Print what the champion sees in photographs."""
    quiet()
    from nutclf.serve.answers import answer_files

    failed = 0
    for answer in answer_files(open_store(store), model, images):
        say(answer.line())
        failed += answer.error is not None
    if failed:
        raise UserError(f"{failed} file(s) could not be read; the reasons are above.")


def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="To listen on.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    model: Annotated[str, typer.Option(help="Name of the registered model.")] = "nutclf",
    store: StoreOption = "mlruns",
) -> None:
    """Answer photographs over HTTP, by MLflow's scoring server."""
    quiet()
    from nutclf.serve.champion import open_champion
    from nutclf.serve.server import application, listen
    from nutclf.serve.server import serve as answer

    heard = listen(host, port)
    app = application(open_champion(open_store(store), model))
    say(f"{model}@champion answers at http://{host}:{port}/invocations   (Ctrl-C ends it)")
    answer(app, heard)


def export(
    to: Annotated[str, typer.Option(help="litert (float and int8), or onnx.")] = "litert",
    model: Annotated[str, typer.Option(help="Name of the registered model.")] = "nutclf",
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("exports"),
    data: DataOption = "auto",
    store: StoreOption = "mlruns",
) -> None:
    """Write the champion for phones, and hold it against the original."""
    quiet()
    from nutclf.serve.export import check_format, export_champion

    check_format(to)  # told before any data are fetched
    source = find_data(data)
    records, load_split = open_store(store), splits_of(source)
    fingerprint = source.folder.fingerprint
    for found in export_champion(records, model, to, out, load_split, fingerprint):
        say(found.line())
