"""The MLflow UI over the store."""

import os
import subprocess
import sys

from nutclf.track.store import Store


def serve_ui(store: Store, port: int) -> None:
    """Serves the UI on 127.0.0.1 until it is stopped.

    Without job execution and with one worker MLflow's server is two processes and half a gigabyte
    instead of fourteen and three.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.tracking_uri]
    if store.artifact_root is not None:
        command += ["--default-artifact-root", store.artifact_root.as_uri()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    subprocess.run(command, env=environment, check=False)
