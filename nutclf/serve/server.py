"""The champion over HTTP: MLflow's scoring server on it."""

import json
import logging
import socket
from collections.abc import Awaitable, Callable

import uvicorn
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import PyFuncModel, scoring_server
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import AnyType

from nutclf.errors import UserError
from nutclf.serve.photographs import ALLOWED, COLUMN, REFUSED, Photographs
from nutclf.serve.recognise import Recogniser

MAX_REQUEST_MEGABYTES = 128
_PATH = "/invocations"
_FIELDS = ("dataframe_split", "dataframe_records", "inputs", "instances")
_JSON = "application/json"
_EXAMPLE = '{"inputs": ["<base64 text>"]}'
_OK, _BAD_REQUEST, _WRONG_TYPE, _TOO_LONG = 200, 400, 415, 504

Receive = Callable[[], Awaitable[dict]]
Send = Callable[[dict], Awaitable[None]]


class OneSentence:
    """An ASGI application around another.

    Args:
      app: MLflow's scoring server.
    """

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope: dict, receive: Receive, send: Send) -> None:
        """Passes a request on, and replaces the answer where it is an error."""
        if scope["type"] != "http" or (scope["path"], scope["method"]) != (_PATH, "POST"):
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            given = f"more than {MAX_REQUEST_MEGABYTES} MB in one request"
            await _refuse(send, _BAD_REQUEST, _sentence(given))
            return
        status, messages = await self._ask(scope, body)
        if status == _OK:
            for message in messages:
                await send(message)
            return
        reply = b"".join(message.get("body", b"") for message in messages)
        sentence = _ours(reply) or _sentence(_given(status, _content_type(scope), body))
        await _refuse(send, status if status == _TOO_LONG else _BAD_REQUEST, sentence)

    async def _ask(self, scope: dict, body: bytes) -> tuple[int, list[dict]]:
        """The answer of the inner application: its status, and its messages."""
        messages: list[dict] = []

        async def again() -> dict:
            return {"type": "http.request", "body": body, "more_body": False}

        async def keep(message: dict) -> None:
            messages.append(message)

        try:
            await self._app(scope, again, keep)
        except Exception:  # the server goes on; its terminal has the reason, its answer has not
            logging.getLogger("nutclf.serve").exception("a request ended in an error")
            return _BAD_REQUEST, []
        return messages[0]["status"], messages


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None, once all of it has arrived, when it is too large."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size > MAX_REQUEST_MEGABYTES * 1_000_000:
            parts.clear()  # read to its end: a client that still sends would not hear the answer
        else:
            parts.append(part)
    return b"".join(parts) if size <= MAX_REQUEST_MEGABYTES * 1_000_000 else None


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error_code": "BAD_REQUEST", "message": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _sentence(given: str) -> str:
    return f"The request has {given}; send {_JSON} such as {_EXAMPLE}: {ALLOWED}."


def _ours(reply: bytes) -> str | None:
    """The sentence of an answer that is `photographs.Refused`; None of any other."""
    try:
        answer = json.loads(reply)
    except ValueError:
        return None
    ours = isinstance(answer, dict) and answer.get("refused_by") == REFUSED
    return answer["message"] if ours else None


def _content_type(scope: dict) -> str:
    return dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")[:60]


def _given(status: int, content_type: str, body: bytes) -> str:
    """What a request has that MLflow's server did not take, as far as can be told."""
    if status == _WRONG_TYPE or not content_type.startswith(_JSON):
        return f"the content type {content_type!r}" if content_type else "no content type"
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return f"a body of {len(body)} bytes that is not JSON"
    if not isinstance(content, dict):
        return f"a {type(content).__name__} where an object is needed"
    if len(given := [name for name in content if name in _FIELDS]) != 1:
        named = ", ".join(repr(name[:30]) for name in given or list(content)[:5]) or "none"
        return f"the fields {named}, where one of {', '.join(_FIELDS)} is needed"
    return f"{given[0]!r} without a column {COLUMN!r} of texts"


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
