"""Verbs about the records: looking at them, and repairing them."""

import sys
from typing import Annotated

import typer

from nutclf.cli.opening import FEATURES, open_store
from nutclf.cli.options import StoreOption, store_hint
from nutclf.cli.process import quiet, say


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1.")] = 5000,
    store: StoreOption = "mlruns",
) -> None:
    """Open the MLflow UI on the records."""
    quiet()
    from nutclf.track.ui import serve_ui, study_links

    address = open_store(store).prepare()
    say(f"MLflow UI on http://127.0.0.1:{port} over {address.tracking_uri}   (Ctrl-C ends it)")
    for study, link in study_links(address, port):
        say(f"{study}, the best trial first: {link}")
    serve_ui(address, port)


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair what can be; databases are copied first.")
    ] = False,
    store: StoreOption = "mlruns",
) -> None:
    """Find what kills, moves and damages left behind, and repair it."""
    quiet()
    from nutclf.search.doctor import examine

    tally = examine(open_store(store), FEATURES, fix, say)
    if not tally.found:
        say("Nothing to repair.")
        return
    say(f"{tally.found} found, {tally.repaired} repaired.")
    if tally.repairable:
        say(f"Repair {tally.repairable} of them: make doctor FIX=1{store_hint(store)}")
    if tally.left:
        sys.exit(1)
