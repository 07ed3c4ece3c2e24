"""The verbs: `python -m nutclf VERB`. The only module that prints; it wires the rooms together."""

import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from nutclf.errors import SweepFailed, UserError, causes, says_no_room
from nutclf.process import (
    accept_surroundings,
    hear_signals_once,
    listen,
    quiet,
    seed_everything,
)

WORKDIR = Path(__file__).parents[1]
_FEATURE_BUDGET_BYTES = int(20e9)
_TRIALS = {"photographs": 20, "drawn": 12}
_GO_ON = "Make some, 200 MB at least, and give the same command again; what was finished is kept."
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
_DATA_HELP = (
    "auto ($NUTCLF_DATA, data/tree-nuts, Kaggle, else drawn), drawn, or a folder of "
    "train|valid|test/<class>/<image>, or of <class>/<image>, or a table in CSV."
)
DataOption = Annotated[str, typer.Option(help=_DATA_HELP)]
_CORRECTIONS_HELP = "A copy of the audit's suspects.csv with a column `decision`."
CorrectionsOption = Annotated[str, typer.Option(help=_CORRECTIONS_HELP)]
_OBJECTIVE_HELP = (
    "cv (folds of the training split), valid (the published split), or auto: cv for photographs, "
    "valid for drawings."
)
ObjectiveOption = Annotated[str, typer.Option(help=_OBJECTIVE_HELP)]
StoreOption = Annotated[str, typer.Option(envvar="NUTCLF_STORE", help="Folder of the records.")]
ModelOption = Annotated[str, typer.Option(help="Name of the registered model.")]
_OWN_MODEL_HELP = "Name of experiment and registered model; the data set's own if empty."
OwnModelOption = Annotated[str, typer.Option("--model", help=_OWN_MODEL_HELP)]
_WEIGHTS_HELP = "pretrained, or random to try the machinery without weights."
WeightsOption = Annotated[str, typer.Option(help=_WEIGHTS_HELP)]
_BACKBONE_HELP = "A network of keras.applications in lower case; the study's own if empty."
BackboneOption = Annotated[str, typer.Option(help=_BACKBONE_HELP)]
PortOption = Annotated[int, typer.Option(min=1, max=65535, help="To listen on.")]


@app.command()
def sweep(  # noqa: PLR0913 - as many as a person may set
    study: StudyOption = "mobilenetv2",
    name: NameOption = "",
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Trials in all, complete or pruned: 20, of drawings 12."),
    ] = None,
    timeout: Annotated[
        str, typer.Option(help="Minutes after which no new fit begins; also 10m, 1h.")
    ] = "",
    data: DataOption = "auto",
    objective: ObjectiveOption = "auto",
    store: StoreOption = "mlruns",
    weights: WeightsOption = "pretrained",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Fits at once, each a process: 1; of a cluster, its room."),
    ] = None,
    ray: Annotated[str, typer.Option(help="Address of a Ray cluster, or auto.")] = "",
    cpus_per_fit: Annotated[
        int, typer.Option(min=1, help="Of a cluster; a node with GPUs gives one of those instead.")
    ] = 1,
    backbone: BackboneOption = "",
    model: OwnModelOption = "",
    corrections: CorrectionsOption = "",
) -> None:
    """Search the recipe, record every trial, promote the best model."""
    timeout_s = seconds_of(timeout)
    # First of all: the workers import TensorFlow while this process does, and finds the images.
    with closing(_open_engine(workers, ray, cpus_per_fit)) as engine:
        quiet()
        from nutclf.search.driver import sweep as run_sweep
        from nutclf.search.explain import explain

        config, source = _open_study_on_data(
            study, name, data, objective, backbone, model, corrections
        )
        records = _open_store(store)
        trials = trials or _TRIALS[source.kind]
        limits = {"n_trials": trials, "timeout_s": timeout_s, "weights": weights}
        run_sweep(config, source, records, _open_features(), engine, _say, **limits)
    verdict = _promote_best(records, config, source)
    typed = _as_typed(study, name, trials, data, objective, weights, backbone, model, corrections)
    explain(records, config, source, _say, typed)
    _say("")
    _say(f"Look at it:   make ui{_store_hint(store)}")
    hint = _store_hint(store) + ("" if source.model == "nutclf" else f" MODEL={source.model}")
    _say(f"Use it:       make predict IMAGE=photo.jpg{hint}   ({verdict.uri})")


@app.command()
def ui(
    port: PortOption = 5000,
    store: StoreOption = "mlruns",
) -> None:
    """Open the MLflow UI on the records."""
    quiet()
    from nutclf.track.ui import serve_ui, study_links

    records = _open_store(store).prepare()
    listen("127.0.0.1", port).close()  # MLflow's server would say so late, in a traceback
    _say(f"MLflow UI on http://127.0.0.1:{port} over {records.tracking_uri}   (Ctrl-C ends it)")
    for study, shown, link in study_links(records, port):
        _say(f"{study}, {shown}: {link}")
    serve_ui(records, port)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    model: ModelOption = "nutclf",
    store: StoreOption = "mlruns",
) -> None:
    """Print what the champion sees in photographs."""
    quiet()
    from nutclf.serve.answers import answer_files

    failed = 0
    for answer in answer_files(_open_store(store), model, images):
        _say(answer.line())
        failed += answer.error is not None
    if failed:
        raise UserError(f"{failed} file(s) could not be read; the reasons are above.")


@app.command()
def serve(
    port: PortOption = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    model: ModelOption = "nutclf",
    data: Annotated[
        str, typer.Option(help="Folder of the training photographs, to show the nearest.")
    ] = "",
    store: StoreOption = "mlruns",
) -> None:
    """Open a page to hold a photograph up to; answers programs too."""
    quiet()
    from functools import partial

    from nutclf.serve.answers import newer_champion, open_champion
    from nutclf.serve.server import application
    from nutclf.serve.server import serve as answer

    folder = Path(data or os.environ.get("NUTCLF_DATA") or WORKDIR / "data" / "tree-nuts")
    pictures = folder if folder.is_dir() else None
    if data and not pictures:
        raise UserError(f"--data is {data!r}, which is no folder; name that of train/, or nothing.")
    heard, records = listen(host, port), _open_store(store)
    champion = open_champion(records, model)
    champion.recogniser.warm_up()
    served = application(champion, partial(newer_champion, records, model), pictures)
    _say(f"{model}@champion, version {champion.version}: http://{host}:{port}   (Ctrl-C ends it)")
    answer(served, heard)


@app.command()
def report(
    study: StudyOption = "mobilenetv2",
    name: NameOption = "",
    data: DataOption = "auto",
    objective: ObjectiveOption = "auto",
    backbone: BackboneOption = "",
    model: OwnModelOption = "",
    corrections: CorrectionsOption = "",
    store: StoreOption = "mlruns",
) -> None:
    """Write one page on a study: ranking, curves, mistakes, verdict."""
    quiet()
    from nutclf.report.page import draw_page, keep_page, read_evidence
    from nutclf.search.explain import explain, importances
    from nutclf.search.study import find_study
    from nutclf.track.studies import read_study

    config, source = _open_study_on_data(study, name, data, objective, backbone, model, corrections)
    records = _open_store(store).prepare()
    found = read_study(records, source.model, config, source.data.fingerprint)
    explain(records, config, source, _say)
    shares = importances(find_study(records, config.name))
    page = draw_page(found, read_evidence(found), shares, source.root)
    _say(f"The report, also an artifact of the study's run: {keep_page(records, found, page)}")


@app.command()
def audit(
    study: StudyOption = "mobilenetv2",
    name: NameOption = "",
    data: DataOption = "auto",
    objective: ObjectiveOption = "auto",
    backbone: BackboneOption = "",
    model: OwnModelOption = "",
    corrections: CorrectionsOption = "",
    store: StoreOption = "mlruns",
) -> None:
    """Find broken files, copies, leaks and doubtful labels."""
    quiet()
    from nutclf.audit.images import audit_images, audit_lines

    config, source = _open_study_on_data(study, name, data, objective, backbone, model, corrections)
    seed_everything(config.seed)
    found = audit_images(config, source, _open_store(store), _open_features(), _say)
    for line in ("", *audit_lines(found)):
        _say(line)


@app.command()
def ladder(
    backbone: BackboneOption = "mobilenetv2",
    data: DataOption = "auto",
    corrections: CorrectionsOption = "",
    store: StoreOption = "mlruns",
) -> None:
    """Climb the published ladder; print its values beside ours."""
    quiet()
    from nutclf.ladder.climb import EXPERIMENTS, SEED, climb
    from nutclf.model.backbones import find_spec, load_backbone
    from nutclf.search.driver import DRAWN_SIZE

    find_spec(backbone)  # a misspelt name is told before any data are fetched
    source = _find_data(data, corrections)
    seed_everything(SEED)
    size = DRAWN_SIZE if source.kind == "drawn" else None
    network = load_backbone(backbone, image_size=size, say=_say)
    table = climb(network, source, _open_store(store), _open_features(), _say)
    _say("")
    _say(table)
    _say("")
    where = f"(experiment {EXPERIMENTS[source.kind]})"
    _say(f"Look at it:   make ui{_store_hint(store)}   {where}")


@app.command()
def promote(
    study: StudyOption = "mobilenetv2",
    name: NameOption = "",
    data: DataOption = "auto",
    objective: ObjectiveOption = "auto",
    force: Annotated[
        str, typer.Option(help="Your reason to promote it whatever the comparison says.")
    ] = "",
    backbone: BackboneOption = "",
    model: OwnModelOption = "",
    corrections: CorrectionsOption = "",
    store: StoreOption = "mlruns",
) -> None:
    """Register a study's best model; champion if it beats the present."""
    quiet()
    from nutclf.search.explain import explain

    config, source = _open_study_on_data(study, name, data, objective, backbone, model, corrections)
    records = _open_store(store).prepare()
    _promote_best(records, config, source, force)
    explain(records, config, source, _say)


@app.command()
def export(
    to: Annotated[str, typer.Option(help="litert (float and int8), or onnx.")] = "litert",
    model: ModelOption = "nutclf",
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("exports"),
    data: DataOption = "auto",
    corrections: CorrectionsOption = "",
    store: StoreOption = "mlruns",
) -> None:
    """Write the champion for phones, and compare it with the original."""
    quiet()
    from nutclf.serve.export import check_format, export_champion

    check_format(to)  # told before any data are fetched
    source = _find_data(data, corrections)
    records, fingerprint = _open_store(store), source.data.fingerprint
    export_champion(records, model, to, out, _splits_of(source), fingerprint, _say)


@app.command()
def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair what can be; databases are copied first.")
    ] = False,
    store: StoreOption = "mlruns",
) -> None:
    """Find what moves, deletions and damage left behind, and repair it."""
    quiet()
    from nutclf.search.doctor import examine

    tally = examine(_open_store(store), _features(), fix, _say)
    if not tally.found:
        _say("Nothing to repair.")
        return
    _say(f"{tally.found} found, {tally.repaired} repaired.")
    if tally.repairable:
        _say(f"Repair {tally.repairable} of them: make doctor FIX=1{_store_hint(store)}")
    if tally.left:
        sys.exit(1)


def main() -> None:
    """Runs a verb; a person's mistake ends in one sentence and exit code 2."""
    hear_signals_once()
    try:
        accept_surroundings()
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
        gone = _server_that_is_away(error)
        if says_no_room(error):
            _leave(f"nutclf: There is no room left ({_room()}). {_GO_ON}", 2)
        if not gone:
            raise
        _leave(
            f"nutclf: {gone} does not answer any more; what was recorded is kept. Give the same "
            "command once it does.",
            2,
        )


def _room() -> str:
    """Where this program writes, and how much is free there."""
    named = [os.environ.get("NUTCLF_STORE", ""), os.environ.get("NUTCLF_CACHE", "")]
    folders = dict.fromkeys([*filter(None, named), tempfile.gettempdir(), str(WORKDIR)])
    free = {folder: shutil.disk_usage(folder).free for folder in folders if Path(folder).exists()}
    return ", ".join(f"{folder}: {bytes_ / 1e6:.0f} MB free" for folder, bytes_ in free.items())


def _server_that_is_away(error: BaseException) -> str:
    """Which server of the records an error says cannot be reached; "" for none."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    if server.startswith("http") and says_that_server_is_away(error):
        return f"MLflow at {server}"
    of_postgres = any(type(cause).__module__.startswith("psycopg") for cause in causes(error))
    return "PostgreSQL" if of_postgres else ""


def seconds_of(timeout: str) -> float | None:
    """TIMEOUT in seconds: minutes, or a number with m or h; None for "".

    Raises:
      UserError: it is no such text, or not above 0.
    """
    if not timeout:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(m|min|h|)", timeout.strip())
    minutes = float(match[1]) * (60 if match[2] == "h" else 1) if match else 0
    if minutes <= 0:
        raise UserError(
            f"TIMEOUT is {timeout!r}; allowed: minutes above 0, such as 30, 10m or 1h, or nothing "
            "for no limit."
        )
    return minutes * 60


def load_study(study: str, name: str = ""):
    """The `STUDY` of experiments/<study>.py, under another name if one is given."""
    folder = WORKDIR / "experiments"
    known = sorted(path.stem for path in folder.glob("*.py"))
    if study not in known:
        raise UserError(f"Unknown study {study!r}; experiments/ has {', '.join(known)}.")
    spec = importlib.util.spec_from_file_location(f"experiments.{study}", folder / f"{study}.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return dataclasses.replace(module.STUDY, **({"name": name} if name else {}))
    except (AttributeError, ImportError, NameError, SyntaxError, TypeError) as error:
        raise UserError(
            f"experiments/{study}.py is no study ({type(error).__name__}: {error}); mend it, or "
            "name another file of experiments/ with STUDY=."
        ) from error


def _open_study_on_data(
    study: str,
    name: str,
    data: str,
    objective: str,
    backbone: str,
    model: str,
    corrections: str,
):
    """The study of experiments/ as it runs on the data that were found, and those data."""
    from nutclf.model.backbones import find_spec
    from nutclf.search.driver import for_data, with_backbone, with_objective

    config = load_study(study, name)  # a misspelt name is told before any data are fetched
    find_spec(backbone or config.backbone)
    if re.search(r"[^\w-]", model) or len(model) > 100:
        raise UserError(
            f"MODEL is {model!r}; allowed: up to 100 letters, digits, hyphens and underscores."
        )
    source = dataclasses.replace(_find_data(data, corrections), name=model)
    if source.kind == "drawn" and source.model == "nutclf":
        raise UserError("MODEL is 'nutclf', which photographs have; drawn nuts need another name.")
    config = with_backbone(with_objective(for_data(config, source), objective), backbone)
    return config, source


def _find_data(data: str, corrections: str):
    """The data set, announced: drawn data in words that nobody can miss."""
    from nutclf.data.source import resolve
    from nutclf.evaluate.fonts import use_fonts_for

    source = resolve(data, environ=os.environ, workdir=WORKDIR)
    if corrections:
        source = source.corrected_by(WORKDIR / Path(corrections).expanduser())
    lines = [source.origin]
    if source.kind == "drawn":
        hint = "For photographs: make sweep DATA=folder, with train/ valid/ test/ of class folders."
        lines = ["=" * 100, source.origin, hint, "=" * 100]
    for line in lines:
        _say(line)
    for note in source.data.notes:
        _say(f"note: {note}")
    if letters := use_fonts_for(source.data.classes):
        _say(
            f"note: no font on this machine has {letters}: figures show boxes for them. Install "
            "one that does, such as fonts-noto-cjk."
        )
    return source


def _splits_of(source):
    """Reads the data set's splits, for those that ask for them one by one."""
    from nutclf.data.folder import read_split

    return lambda split, size: read_split(source.data, split, size)


def _open_store(folder: str):
    from nutclf.track.store import Store

    return Store.at(WORKDIR / Path(folder).expanduser(), os.environ)


def _open_features():
    from nutclf.train.feature_store import FeatureStore

    return FeatureStore(_features(), _FEATURE_BUDGET_BYTES)


def _features() -> Path:
    """`NUTCLF_CACHE` is a disk that is fast and large, if the checkout's is not."""
    return Path(os.environ.get("NUTCLF_CACHE") or WORKDIR / ".cache").expanduser() / "features"


def _open_engine(workers: int | None, ray: str, cpus_per_fit: int):
    """Workers on this machine, or on those of a Ray cluster."""
    if not ray:
        from nutclf.search.engines import LocalProcesses

        return LocalProcesses(workers or 1, _say)
    try:
        from nutclf.search.ray_engine import RayCluster
    except ModuleNotFoundError as error:
        raise UserError(
            f"RAY is {ray!r}, and Ray is not installed ({error}); `make sweep RAY=` installs it, "
            "or: pip install '.[ray]'."
        ) from error
    engine = RayCluster(ray, workers, cpus_per_fit, _say)
    hear_signals_once()  # Ray has put a handler of its own in the place of ours
    return engine


def _promote_best(store, config, source, force: str = ""):
    """Promotes, and prints the verdict."""
    from nutclf.data.duplicates import leaked_test_images
    from nutclf.track.promotion import promote as promote_study

    verdict = promote_study(
        store,
        source.model,
        config.name,
        config.objective,
        _splits_of(source),
        source.data.fingerprint,
        lambda: leaked_test_images(source.data),
        force,
    )
    _say("")
    _say(verdict.reason)
    return verdict


def _as_typed(
    study: str,
    name: str,
    trials: int,
    data: str,
    objective: str,
    weights: str,
    backbone: str,
    model: str,
    corrections: str,
) -> str:
    """The sweep as a person types it again; what has its default is left out."""
    given = {"NAME": name, "DATA": data, "OBJECTIVE": objective, "WEIGHTS": weights}
    given |= {"BACKBONE": backbone, "MODEL": model, "CORRECTIONS": corrections}
    said = {key: value for key, value in given.items() if value not in ("", "auto", "pretrained")}
    settings = {"STUDY": study, "TRIALS": str(trials)} | said
    return " ".join(["make sweep", *(f"{k}={shlex.quote(v)}" for k, v in settings.items())])


def _store_hint(store: str) -> str:
    """What to add to a command to find the same records."""
    return "" if store == "mlruns" else f" STORE={shlex.quote(store)}"


def says_that_server_is_away(error: Exception) -> bool:
    """Whether an error of MLflow's client says that its server cannot be reached."""
    text = f"{type(error).__module__}: {error}"
    signs = "failed with exception|failed with timeout|Max retries|error code 50[234]"
    return text.startswith("requests.") or re.search(signs, text) is not None


def _say(line: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(line, flush=True)


def _leave(line: str, code: int) -> None:
    print(line, file=sys.stderr, flush=True)
    sys.exit(code)
