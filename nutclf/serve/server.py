"""The champion over HTTP: photographs in the forms of MLflow's scoring server, answers back."""

import json
import logging
import socket

import mlflow
import pandas as pd
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse

from nutclf.errors import UserError
from nutclf.serve.photographs import ALLOWED, COLUMN, Photographs, Recogniser, Refused

MAX_REQUEST_MEGABYTES = 128
_FIELDS = ("dataframe_split", "dataframe_records", "inputs", "instances")
_JSON = "application/json"
_SEND = f'{_JSON} such as {{"inputs": ["<base64 text>"]}}: {ALLOWED}'


def application(recogniser: Recogniser) -> FastAPI:
    """POST /invocations; GET /ping, /health and /version, as MLflow's scoring server has them.

    That server would open the model by what its MLmodel file names, which is a program.
    """
    recogniser.warm_up()
    photographs = Photographs(recogniser)
    app = FastAPI(openapi_url=None)  # and no /docs, whose page loads from a foreign host

    @app.post("/invocations")
    async def invocations(request: Request) -> Response:
        try:
            data = _parse(request.headers.get("content-type", ""), await _body(request))
            answers = await run_in_threadpool(photographs.predict, data)
            return Response(json.dumps({"predictions": answers}), media_type=_JSON)
        except Refused as error:
            refused = error
        except Exception:  # the server goes on; its terminal has the reason, its answer has not
            logging.getLogger("nutclf.serve").exception("a request ended in an error")
            refused = Refused("The request cannot be answered", _SEND)
        return Response(refused.serialize_as_json(), 400, media_type=_JSON)

    @app.get("/ping")
    @app.get("/health")
    def alive() -> Response:
        return Response()

    @app.get("/version")
    def version() -> PlainTextResponse:
        return PlainTextResponse(mlflow.__version__)

    return app


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    # Read to its end when it is too large: a client that still sends would not hear the answer.
    async for part in request.stream():
        size += len(part)
        if size <= MAX_REQUEST_MEGABYTES * 1_000_000:
            parts.append(part)
    if size > MAX_REQUEST_MEGABYTES * 1_000_000:
        raise _refused(f"more than {MAX_REQUEST_MEGABYTES} MB in one request")
    return b"".join(parts)


def _parse(content_type: str, body: bytes) -> object:
    """What a request holds, for `Photographs.predict`. Raises `Refused` with what is wrong."""
    if content_type.replace(" ", "").lower() not in (_JSON, f"{_JSON};charset=utf-8"):
        named = f"the content type {content_type[:60]!r}"
        raise _refused(named if content_type else "no content type")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _refused(f"a body of {len(body)} bytes that is not JSON") from error
    if not isinstance(content, dict):
        raise _refused(f"a {type(content).__name__} where an object is needed")
    if len(given := [name for name in content if name in _FIELDS]) != 1:
        named = ", ".join(repr(name[:30]) for name in given or list(content)[:5]) or "none"
        raise _refused(f"the fields {named}, where one of {', '.join(_FIELDS)} is needed")
    field, value = given[0], content[given[0]]
    try:
        if field == "dataframe_split":
            return pd.DataFrame(value["data"], columns=value.get("columns"))
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return pd.DataFrame.from_records(value)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise _refused(f"{field!r} without a column {COLUMN!r} of texts") from error
    return value


def _refused(what: str) -> Refused:
    return Refused(f"The request has {what}", _SEND)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `UserError`: the port is taken, or the host not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (")[0]
        problem = f"{host} port {port} cannot be listened on ({reason})"
        raise UserError(f"{problem}; name another with PORT= or --host.") from error


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Answers until it is stopped."""
    config = uvicorn.Config(app, log_level="warning", lifespan="off")
    uvicorn.Server(config).run(sockets=[listening])
