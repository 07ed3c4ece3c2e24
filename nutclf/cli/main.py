"""`python -m nutclf`: runs a verb, and ends in a sentence and an exit code."""

import os
import sys

import typer

from nutclf.cli.champion import export, predict, serve
from nutclf.cli.records import doctor, ui
from nutclf.cli.studies import audit, ladder, promote, report, sweep
from nutclf.errors import SweepFailed, UserError
from nutclf.search.signals import hear_signals_once

_INTERRUPTED = 130  # exit code; typer swallows Ctrl-C and returns this instead

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune ImageNet networks on tree nuts, search the recipe, keep the best model.",
)
for verb in (sweep, ui, predict, serve, report, audit, ladder, promote, export, doctor):
    app.command()(verb)


def main() -> None:
    """Runs a verb; a person's mistake ends in one sentence and exit code 2."""
    hear_signals_once()
    try:
        if app(standalone_mode=False) == _INTERRUPTED:
            raise KeyboardInterrupt
    except UserError as error:
        _leave(f"nutclf: {error}", 2)
    except SweepFailed as error:
        _leave(f"nutclf: {error}. Their runs hold the reasons.", 1)
    except (KeyboardInterrupt, typer.Abort):
        _leave("Stopped. What was finished is kept.", _INTERRUPTED)
    except Exception as error:
        if hasattr(error, "show"):  # click's own: a misspelt option, a wrong value
            error.show()
            sys.exit(error.exit_code)
        from nutclf.track.outbox import is_away

        server = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not server.startswith("http") or not is_away(error):
            raise
        _leave(
            f"nutclf: MLflow at {server} does not answer any more; what was recorded is kept. Give "
            "the same command once it does.",
            2,
        )


def _leave(line: str, code: int) -> None:
    print(line, file=sys.stderr, flush=True)
    sys.exit(code)
