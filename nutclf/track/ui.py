"""The MLflow UI over the store."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from urllib.parse import quote, urlencode

from mlflow.entities import Run

from nutclf.track.runs import WITH_A_MODEL, quoted
from nutclf.track.store import Store


def study_links(store: Store, port: int) -> list[tuple[str, str]]:
    """The name of each study, and the address of its trials and probes in the UI, best first."""
    client = store.client()
    experiments = [e.experiment_id for e in client.search_experiments()]
    query = "tags.kind = 'study' AND params.`objective.metric` != ''"
    studies = client.search_runs(experiments, query)
    return [(run.data.tags["study_name"], _trials_address(run, port)) for run in studies]


def _trials_address(study: Run, port: int) -> str:
    params = study.data.params
    query = {
        "workflowType": "machine_learning",
        "searchFilter": f"tags.study_name = {quoted(study.data.tags['study_name'])} "
        f"AND {WITH_A_MODEL}",
        "orderByKey": f"metrics.`{params['objective.metric']}`",
        "orderByAsc": str(params["objective.direction"] == "minimize").lower(),
        "startTime": "ALL",
    }
    encoded = urlencode(query, quote_via=quote)  # the page would show a plus as a plus
    return f"http://127.0.0.1:{port}/#/experiments/{study.info.experiment_id}/runs?{encoded}"


def serve_ui(store: Store, port: int) -> None:
    """Serves the UI on 127.0.0.1 until it is stopped."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.tracking_uri]
    if store.artifact_root is not None:
        command += ["--default-artifact-root", store.artifact_root.as_uri()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # With one worker and no job execution: two processes and half a GB, not fourteen and three.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        server.wait()
    finally:  # a signal reaches this process only, and MLflow's server is two more
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
