"""The verbs: `python -m nutclf VERB`. The only module that prints; it wires the rooms together."""

import dataclasses
import importlib.util
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from nutclf.errors import SweepFailed, UserError
from nutclf.process import hear_signals_once, quiet, seed_everything


def say(line: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(line, flush=True)


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


WORKDIR = Path(__file__).parents[1]
FEATURES = WORKDIR / ".cache" / "features"
_FEATURE_BUDGET_BYTES = int(20e9)


def open_study_on_data(study: str, name: str, data: str, objective: str):
    """The study of experiments/ as it runs on the data that were found, and those data."""
    from nutclf.search.session import for_data, with_objective

    config = load_study(study, name)  # a misspelt name is told before any data are fetched
    source = find_data(data)
    return with_objective(for_data(config, source.kind), objective), source


def load_study(study: str, name: str):
    """The `STUDY` of experiments/<study>.py, under another name if one is given."""
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
    for note in source.data.notes:
        say(f"note: {note}")
    return source


def splits_of(source):
    """Reads the data set's splits, for those that ask for them one by one."""
    from nutclf.data.folder import read_split

    return lambda split, size: read_split(source.data, split, size)


def open_store(folder: str):
    """The addresses of the records."""
    from nutclf.track.store import Store

    return Store.at(WORKDIR / Path(folder).expanduser(), os.environ)


def open_places(store: str):
    """Where a verb that trains reads and writes."""
    from nutclf.search.places import Places

    return Places(open_store(store), FEATURES, _FEATURE_BUDGET_BYTES)


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
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the study.")] = 1,
) -> None:
    """Search the recipe, record every trial, promote the best model."""
    quiet()
    from nutclf.search.explain import explain
    from nutclf.search.session import EXPERIMENTS
    from nutclf.search.workers import run_workers

    config, source = open_study_on_data(study, name, data, objective)
    places = open_places(store)
    run_workers(workers, work, (config, source, places, trials, weights), say)
    experiment = EXPERIMENTS[source.kind]
    verdict = promote_best(places.store, experiment, config, source)
    command = as_typed(study, name, trials, data, objective, weights)
    explain(places.store, config, source, say, command)
    model = "" if experiment == "nutclf" else f" MODEL={experiment}"
    say("")
    say(f"Look at it:   make ui{store_hint(store)}")
    say(f"Use it:       make predict IMAGE=photo.jpg{model}{store_hint(store)}   ({verdict.uri})")


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
    """Register a study's best model; champion if it beats the present."""
    quiet()
    from nutclf.search.explain import explain
    from nutclf.search.session import EXPERIMENTS

    config, source = open_study_on_data(study, name, data, objective)
    records = open_store(store).prepare()
    promote_best(records, EXPERIMENTS[source.kind], config, source, force)
    explain(records, config, source, say)


def audit(
    study: StudyOption = "mobilenetv2",
    name: NameOption = "",
    data: DataOption = "auto",
    objective: ObjectiveOption = "auto",
    store: StoreOption = "mlruns",
) -> None:
    """Find broken files, copies, leaks and doubtful labels."""
    quiet()
    from nutclf.audit.images import audit_images, audit_lines

    config, source = open_study_on_data(study, name, data, objective)
    places = open_places(store)
    seed_everything(config.seed)
    found = audit_images(config, source, places, say)
    for line in ("", *audit_lines(found)):
        say(line)


def report(
    study: StudyOption = "mobilenetv2",
    name: NameOption = "",
    data: DataOption = "auto",
    objective: ObjectiveOption = "auto",
    store: StoreOption = "mlruns",
) -> None:
    """Write one page on a study: ranking, curves, mistakes, verdict."""
    quiet()
    from nutclf.report.page import draw_page, keep_page, read_evidence
    from nutclf.search.explain import explain, importances
    from nutclf.search.session import EXPERIMENTS
    from nutclf.search.study import find_study
    from nutclf.track.studies import read_study

    config, source = open_study_on_data(study, name, data, objective)
    records, folder = open_store(store).prepare(), source.data
    found = read_study(records, EXPERIMENTS[source.kind], config, folder.fingerprint)
    explain(records, config, source, say)
    shares = importances(find_study(records, config.name))
    page = draw_page(found, read_evidence(found), shares, folder.root)
    say(f"The report, also an artifact of the study's run: {keep_page(records, found, page)}")


def ladder(
    backbone: Annotated[
        str, typer.Option(help="Network that climbs: mobilenetv2, the published one, or another.")
    ] = "mobilenetv2",
    data: DataOption = "auto",
    store: StoreOption = "mlruns",
) -> None:
    """Climb the published ladder; print its values beside ours."""
    quiet()
    from nutclf.ladder.climb import EXPERIMENTS, Ladder, backbone_for_data
    from nutclf.ladder.rungs import SEED
    from nutclf.model.backbones import find_spec, load_backbone

    find_spec(backbone)  # a misspelt name is told before any data are fetched
    source = find_data(data)
    places = open_places(store)
    seed_everything(SEED)
    network = load_backbone(backbone_for_data(backbone, source.kind))
    table = Ladder(network, source, places, say).climb()
    say("")
    say(table)
    say("")
    say(f"Look at it:   make ui{store_hint(store)}   (experiment {EXPERIMENTS[source.kind]})")


def work(config, source, places, n_trials: int, weights: str) -> bool:
    """What a worker process of a sweep does; whether the study is full."""
    quiet()
    from nutclf.search.session import Session
    from nutclf.search.workers import TRIALS_PER_PROCESS

    seed_everything(config.seed)
    return Session(config, source, places, say, weights).work(n_trials, TRIALS_PER_PROCESS)


def promote_best(store, experiment: str, config, source, force: str = ""):
    """Promotes, and prints the verdict."""
    from nutclf.data.duplicates import leaked_test_images
    from nutclf.track.promotion import promote

    def find_leaks():
        return leaked_test_images(source.data)

    verdict = promote(
        store,
        experiment,
        config.name,
        config.objective,
        splits_of(source),
        source.data.fingerprint,
        find_leaks,
        force,
    )
    say("")
    say(verdict.reason)
    return verdict


def as_typed(study: str, name: str, trials: int, data: str, objective: str, weights: str) -> str:
    """The sweep as a person types it again; what has its default is left out."""
    given = {"NAME": name, "DATA": data, "OBJECTIVE": objective, "WEIGHTS": weights}
    said = {key: value for key, value in given.items() if value not in ("", "auto", "pretrained")}
    settings = {"STUDY": study, "TRIALS": str(trials)} | said
    return " ".join(["make sweep", *(f"{k}={shlex.quote(v)}" for k, v in settings.items())])


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
    from nutclf.serve.answers import open_champion
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
    fingerprint = source.data.fingerprint
    for found in export_champion(records, model, to, out, load_split, fingerprint):
        say(found.line())


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
