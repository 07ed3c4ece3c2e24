"""The champion over HTTP: MLflow's scoring server on it."""

import socket

import uvicorn
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import PyFuncModel, scoring_server
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import AnyType

from nutclf.errors import UserError
from nutclf.serve.one_sentence import OneSentence
from nutclf.serve.photographs import COLUMN, Photographs
from nutclf.serve.recognise import Recogniser


def listen(host: str, port: int) -> socket.socket:
    """A socket that hears on host and port.

    Raises:
      UserError: the port is taken, or the host is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (")[0]
        raise UserError(
            f"{host} port {port} cannot be listened on ({reason}); name another with PORT= or "
            "--host."
        ) from error


def serve(app: OneSentence, heard: socket.socket) -> None:
    """Answers until it is stopped: POST /invocations; GET /ping, /health and /version."""
    config = uvicorn.Config(app, log_level="warning", lifespan="off")
    uvicorn.Server(config).run(sockets=[heard])


def application(recogniser: Recogniser) -> OneSentence:
    """MLflow's scoring server over a model that is opened already.

    MLflow would open it by what its MLmodel file names, which is a program; this opens nothing.
    """
    recogniser.warm_up()
    # Of a declared type MLflow makes arrays, as wide for every text as for the longest.
    meta = Model(signature=ModelSignature(Schema([ColSpec(AnyType(), COLUMN)])))
    model = PyFuncModel(model_meta=meta, model_impl=Photographs(recogniser))
    return OneSentence(scoring_server.init(model))
