"""Verbs about a study, and about the images it learns from."""

import shlex
from typing import Annotated

import typer

from nutclf.cli.opening import find_data, open_places, open_store, open_study_on_data, splits_of
from nutclf.cli.options import (
    DataOption,
    NameOption,
    ObjectiveOption,
    StoreOption,
    StudyOption,
    store_hint,
)
from nutclf.cli.process import quiet, say, seed_everything


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
    from nutclf.report.audit_lines import audit_lines
    from nutclf.search.audit import audit_images

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
    from nutclf.report.page import draw_page
    from nutclf.search.explain import explain
    from nutclf.search.plots import importances
    from nutclf.search.session import EXPERIMENTS
    from nutclf.search.study import find_study
    from nutclf.track.report import keep_page, read_evidence
    from nutclf.track.study_records import read_study

    config, source = open_study_on_data(study, name, data, objective)
    records, folder = open_store(store).prepare(), source.folder
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
    from nutclf.model.backbones import find_spec, load_backbone
    from nutclf.search.ladder import EXPERIMENTS, Ladder, backbone_for_data
    from nutclf.search.rungs import SEED

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
        return leaked_test_images(source.folder)

    verdict = promote(
        store,
        experiment,
        config.name,
        config.objective,
        splits_of(source),
        source.folder.fingerprint,
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
