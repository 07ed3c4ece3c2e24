"""The verbs: `python -m nutclf VERB`. The only place that prints; it wires the rooms together.

Heavy libraries are imported inside the verbs: help must answer at once.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from nutclf.errors import SweepFailed, UserError

WORKDIR = Path(__file__).parents[1]
FEATURES = WORKDIR / ".cache" / "features"
FEATURE_BUDGET_GB = 20.0
_INTERRUPTED = 130  # exit code; typer swallows Ctrl-C and returns this instead

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune ImageNet networks on tree nuts, search the recipe, keep the best model.",
)

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
        help="valid (the published split), cv (folds of the training split), or auto: the study's."
    ),
]
StoreOption = Annotated[
    str, typer.Option(envvar="NUTCLF_STORE", help="Folder of the records.", show_default=True)
]


@app.command()
def sweep(
    study: StudyOption = "mobilenetv2",
    name: NameOption = "",
    trials: Annotated[int, typer.Option(min=1, help="Results in the study, in all.")] = 20,
    data: DataOption = "auto",
    objective: ObjectiveOption = "auto",
    store: StoreOption = "mlruns",
    weights: Annotated[
        str, typer.Option(help="pretrained, or random to try the machinery without weights.")
    ] = "pretrained",
) -> None:
    """Search the recipe, record every trial, and promote the best model."""
    quiet()
    from nutclf.search.session import EXPERIMENTS, Places, for_data, run_sweep, with_objective

    config = load_study(study, name)
    source = find_data(data)
    config = with_objective(for_data(config, source.kind), objective)
    places = Places(open_store(store), FEATURES, int(FEATURE_BUDGET_GB * 1e9))
    seed_everything(config.seed)
    run_sweep(config, source, places, trials, say, weights)
    experiment = EXPERIMENTS[source.kind]
    verdict = promote_best(places.store, experiment, config, source)
    model = "" if experiment == "nutclf" else f" MODEL={experiment}"
    say("")
    say(f"Look at it:   make ui{store_hint(store)}")
    say(f"Use it:       make predict IMAGE=photo.jpg{model}{store_hint(store)}   ({verdict.uri})")


@app.command()
def promote(
    study: StudyOption = "mobilenetv2",
    name: NameOption = "",
    data: DataOption = "auto",
    objective: ObjectiveOption = "auto",
    force: Annotated[
        str, typer.Option(help="Your reason to promote it whatever the comparison says.")
    ] = "",
    store: StoreOption = "mlruns",
) -> None:
    """Register a study's best model; make it champion if it beats the present one."""
    quiet()
    from nutclf.search.session import EXPERIMENTS, for_data, with_objective

    config = load_study(study, name)
    source = find_data(data)
    config = with_objective(for_data(config, source.kind), objective)
    promote_best(open_store(store).prepare(), EXPERIMENTS[source.kind], config, source, force)


@app.command()
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


@app.command()
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


def promote_best(store, experiment: str, config, source, force: str = ""):
    """Promotes, and prints the verdict."""
    from nutclf.data.folder import read_split
    from nutclf.track.promotion import Split, promote

    def load_split(split: str, size: int) -> Split:
        loaded = read_split(source.folder, split, size)
        return Split(loaded.images, loaded.labels, loaded.paths)

    fingerprint = source.folder.fingerprint
    verdict = promote(
        store, experiment, config.name, config.objective, load_split, fingerprint, force
    )
    say("")
    say(verdict.reason)
    return verdict


def load_study(study: str, name: str):
    """The `STUDY` of experiments/<study>.py, under another name if one is given."""
    import dataclasses
    import importlib.util

    folder = WORKDIR / "experiments"
    known = sorted(path.stem for path in folder.glob("*.py"))
    if study not in known:
        raise UserError(f"Unknown study {study!r}; experiments/ has {', '.join(known)}.")
    spec = importlib.util.spec_from_file_location(f"experiments.{study}", folder / f"{study}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dataclasses.replace(module.STUDY, name=name) if name else module.STUDY


def find_data(data: str):
    """The data set, announced: drawn data in words that nobody can miss."""
    from nutclf.data.source import resolve

    source = resolve(data, environ=os.environ, workdir=WORKDIR)
    if source.kind == "drawn":
        say("=" * 100)
    say(source.origin)
    if source.kind == "drawn":
        say(
            "For photographs: make sweep DATA=folder, a folder with train/ valid/ test/ of classes."
        )
        say("=" * 100)
    for note in source.folder.notes:
        say(f"note: {note}")
    return source


def open_store(folder: str):
    """The addresses of the records."""
    from nutclf.track.store import Store

    return Store.at(WORKDIR / Path(folder).expanduser(), os.environ)


def store_hint(store: str) -> str:
    """What to add to a command to find the same records."""
    return "" if store == "mlruns" else f" STORE={store}"


def seed_everything(seed: int) -> None:
    """Makes TensorFlow repeat itself bit for bit on the same machine."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    for gpu in tf.config.list_physical_devices("GPU"):
        # Otherwise the first process takes all of a GPU's memory.
        tf.config.experimental.set_memory_growth(gpu, True)


def quiet() -> None:
    """Keeps libraries' own announcements out of what a person reads."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import logging
    import warnings

    _import_tensorflow_silently()
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Promotion opens several models, and TensorFlow takes that for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def _import_tensorflow_silently() -> None:
    """TensorFlow's C++ prints notices on import, before any setting of its own is heard."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def say(line: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(line, flush=True)


def main() -> None:
    """Runs a verb; a person's mistake ends in one sentence and exit code 2."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if app(standalone_mode=False) == _INTERRUPTED:
            raise KeyboardInterrupt
    except UserError as error:
        _leave(f"nutclf: {error}", 2)
    except SweepFailed as error:
        _leave(f"nutclf: {error}. Their runs hold the reasons.", 1)
    except (KeyboardInterrupt, typer.Abort):
        _leave("Stopped. Finished trials are kept; the same command goes on.", _INTERRUPTED)
    except Exception as error:
        if not hasattr(error, "show"):  # click's own: a misspelt option, a wrong value
            raise
        error.show()
        sys.exit(error.exit_code)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _leave(line: str, code: int) -> None:
    print(line, file=sys.stderr, flush=True)
    sys.exit(code)
