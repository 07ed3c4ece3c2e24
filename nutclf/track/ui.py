"""The MLflow UI over the store."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlencode

from mlflow.entities import Run

from nutclf.config import Objective
from nutclf.errors import UserError
from nutclf.track.runs import WITH_A_MODEL, quoted
from nutclf.track.store import Store
from nutclf.track.studies import searched


def study_links(store: Store, port: int) -> list[tuple[str, str, str]]:
    """Name of each study, what a view of its trials and probes shows, and the view's address.

    Writes the views into the store; the UI lists them in its menu "Views", too.
    """
    client, links = store.client(), []
    experiments = [e.experiment_id for e in client.search_experiments()]
    query = "tags.kind = 'study' AND params.`objective.metric` != ''"
    for study in client.search_runs(experiments, query):
        name, experiment_id = study.data.tags["study_name"], study.info.experiment_id
        for mode, title, state in _views(study):
            key = f"{study.info.run_id}-{mode}"
            view = {"name": f"{name}, {title}", "createdAt": study.info.start_time}
            text = json.dumps(view | {"state": json.dumps(state)})
            client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{key}", text)
            # With any setting of a view in the address, MLflow would ignore the view.
            query = {"workflowType": "machine_learning", "viewStateShareKey": key}
            query = urlencode(query | {"compareRunsMode": mode})
            address = f"http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs?{query}"
            links.append((name, title, address))
    return links


def _views(study: Run) -> Iterator[tuple[str, str, dict]]:
    """MLflow's mode, a title and the state of each view: what the UI keeps of one, version 3.17."""
    params = study.data.params | study.data.tags  # a tag tells of a space that was widened
    objective = Objective(params["objective.metric"], params["objective.direction"])
    value, split, names = objective.metric, objective.judged_on, list(searched(params))
    judged = {"cv": ["cv_accuracy", "cv_accuracy_std"], "valid": [value, "best_valid_accuracy"]}
    metrics = [f"metrics.`{metric}`" for metric in [*judged[split], f"{split}_macro_f1"]]
    others = [*(f"params.`{name}`" for name in names), "attributes.`Duration`"]
    table = {
        "searchFilter": f"tags.study_name = {quoted(params['study_name'])} AND {WITH_A_MODEL}",
        "orderByKey": f"metrics.`{value}`",
        "orderByAsc": objective.direction == "minimize",
        "startTime": "ALL",
        "selectedColumns": [*metrics, *others],
        "columnOrder": ["attributes.`Run Name`", *metrics, *others],
        "columnWidths": dict.fromkeys(metrics, 130) | dict.fromkeys(others, 100),
    }
    yield "TABLE", "the best trial first", table
    space = {"type": "PARALLEL", "selectedParams": names, "selectedMetrics": [value]}
    curves = ["valid_loss", "train_loss", "valid_accuracy", "train_accuracy"]
    pictures = [f"confusion_matrix_{split}", "learning_curves", f"calibration_{split}"]
    sections = {
        f"{value} and the recipe": [space | {"showAllRuns": True}],
        "Curves of the best ten": [{"type": "LINE", "metricKey": name} for name in curves],
        "Pictures of the best ten": [{"type": "IMAGE", "imageKeys": pictures}],
    }
    cards = [
        card | {"uuid": f"{title} {number}", "metricSectionId": title, "lineSmoothness": 0}
        for title, cards in sections.items()
        for number, card in enumerate(cards)
    ]
    shapes = [{"columns": 1}, {"columns": 2}, {"columns": 1, "cardHeight": 800}]
    order = [
        shape | {"uuid": title, "name": title, "display": True, "isReordered": True}
        for title, shape in zip(sections, shapes, strict=True)
    ]
    charts = {"compareRunCharts": cards, "compareRunSections": order, "isAccordionReordered": True}
    yield "CHART", "charts", table | charts | {"runsHiddenMode": "FIRST_10_RUNS"}


def serve_ui(store: Store, port: int) -> None:
    """Serves the UI on 127.0.0.1 until it is stopped. Raises `UserError` where it ends itself."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.tracking_uri]
    if store.artifact_root is not None:
        command += ["--default-artifact-root", store.artifact_root.as_uri()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # With one worker and no job execution: two processes and half a GB, not fourteen and three.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        if code := server.wait():
            raise UserError(f"MLflow's server ended with code {code}; its lines above say why.")
    finally:  # a signal reaches this process only, and MLflow's server is two more
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
