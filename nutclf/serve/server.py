"""The champion over HTTP: a page to hold a photograph up to, and the same for programs."""

import asyncio
import io
import json
import logging
import math
import signal
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from PIL import Image
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from nutclf.data.reader import UnreadableImage, read_image
from nutclf.serve.answers import Champion
from nutclf.serve.photographs import MAX_IMAGES, MAX_MEGABYTES, Recognised

MAX_REQUEST_MEGABYTES = 128
MAX_REQUESTS = 32  # at once; the next is told to come again
CHECK_S = 60.0  # between looks for a new champion
_BODY_S = 60.0  # that a client may take to send a request
_DECODERS = 2  # a photograph at the reader's limit takes 0.7 GB while it is decoded
_BATCH = 32  # photographs of several requests that are answered together
_SEND = (
    f"send 1 to {MAX_IMAGES} photographs of up to {MAX_MEGABYTES} MB as a form, "
    "such as curl -F image=@photo.jpg, or the bytes of one with Content-Type: image/jpeg."
)
_PAGE = Path(__file__).with_name("page.html")
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, math.inf)  # seconds
# The page loads nothing from elsewhere, and no other page may frame it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self' "
    "'unsafe-inline'; script-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_log = logging.getLogger("nutclf.serve")


class _Refused(MultiPartException):
    """A request that is not answered, and why, in one sentence.

    Of the parser's own kind: then it closes the files that it has begun.
    """

    def __init__(self, problem: str, status: int = 400):
        super().__init__(problem if status == 503 else f"{problem}; {_SEND}")
        self.status = status


class Desk:
    """Takes photographs of many requests, and has the champion answer them in batches.

    `look` is asked for a new champion now and then: it gives one that has answered already, or
    None where the present one still is it.
    """

    def __init__(self, champion: Champion, look: Callable[[Champion], Champion | None]):
        self.champion, self._look = champion, look
        self.asked, self.n_open = asyncio.Event(), 0
        self._waiting: list[tuple[np.ndarray, asyncio.Future]] = []
        self._some, self._decoders = asyncio.Event(), ThreadPoolExecutor(_DECODERS)
        # One computes at a time: TensorFlow takes all processors for one.
        self.computing = ThreadPoolExecutor(1)
        self.requests, self.seconds, self.answers = Counter(), Counter(), Counter()
        self.total_s = 0.0

    async def read(self, data: bytes, which: str) -> np.ndarray:
        """One photograph as the model takes it, uint8 [S, S, 3]. Raises `_Refused`."""
        if len(data) > MAX_MEGABYTES * 1_000_000:
            raise _Refused(f"{which} has {len(data) / 1e6:.1f} MB")
        loop, read = asyncio.get_running_loop(), self.champion.recogniser.read
        try:
            return await loop.run_in_executor(self._decoders, read, data)
        except UnreadableImage as error:
            raise _Refused(f"{which} is refused: {str(error).rstrip('.')}") from error

    async def recognise(self, pixels: list[np.ndarray]) -> list[Recognised]:
        """Answers to photographs, in their order."""
        futures = [asyncio.get_running_loop().create_future() for _ in pixels]
        self._waiting += zip(pixels, futures, strict=True)
        self._some.set()
        return await asyncio.gather(*futures)

    async def answer_batches(self) -> None:
        """For ever: whatever waits is answered together."""
        while True:
            await self._some.wait()
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            if not self._waiting:
                self._some.clear()
            pixels, futures = zip(*batch, strict=True)
            loop, recognise = asyncio.get_running_loop(), self.champion.recogniser.recognise
            try:
                found = await loop.run_in_executor(self.computing, recognise, np.stack(pixels))
            except Exception as error:
                found = [error] * len(futures)
            for future, answer in zip(futures, found, strict=True):
                if not future.done():  # its client may have gone
                    failed = isinstance(answer, Exception)
                    (future.set_exception if failed else future.set_result)(answer)

    async def follow_champion(self) -> None:
        """For ever: serves a new champion once it is proved; until then, the old one."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.asked.wait(), CHECK_S)
            self.asked.clear()
            try:
                found = await asyncio.to_thread(self._look, self.champion)
            except Exception as error:  # a store that is away, or a model that does not open
                _log.warning("the champion stays version %s: %s", self.champion.version, error)
                continue
            if found is not None:
                _log.warning("serving version %s", found.version)
                self.champion = found

    def count(self, path: str, status: int, seconds: float) -> None:
        """Takes note of a request for `metrics`."""
        self.requests[path, status] += 1
        self.total_s += seconds
        for limit in _BUCKETS:
            self.seconds[limit] += seconds <= limit

    def metrics(self) -> str:
        """Counts and latencies in Prometheus' text format."""
        lines = ["# TYPE nutclf_requests_total counter"]
        for (path, status), n in sorted(self.requests.items()):
            lines.append(f'nutclf_requests_total{{path="{path}",status="{status}"}} {n}')
        lines.append("# TYPE nutclf_answers_total counter")
        lines += [f'nutclf_answers_total{{answer="{a}"}} {n}' for a, n in self.answers.items()]
        lines.append("# TYPE nutclf_request_seconds histogram")
        for limit in _BUCKETS:
            name = "+Inf" if limit == math.inf else f"{limit:g}"
            lines.append(f'nutclf_request_seconds_bucket{{le="{name}"}} {self.seconds[limit]}')
        lines.append(f"nutclf_request_seconds_sum {self.total_s:.6f}")
        lines.append(f"nutclf_request_seconds_count {self.seconds[math.inf]}")
        lines.append("# TYPE nutclf_requests_open gauge")
        lines.append(f"nutclf_requests_open {self.n_open}")
        lines.append("# TYPE nutclf_champion_version gauge")
        lines.append(f"nutclf_champion_version {self.champion.version}")
        return "\n".join(lines) + "\n"


def application(
    champion: Champion,
    look: Callable[[Champion], Champion | None] = lambda known: None,
    pictures: Path | None = None,
) -> FastAPI:
    """GET / is the page, POST /predict answers photographs, POST /gradcam shows where it looked.

    GET /champion, /health and /metrics say what is served and how. `pictures` is the root of the
    training photographs, where they are at hand; of those only what an answer may name is shown.
    """
    desk = Desk(champion, look)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(desk.answer_batches())]
        tasks.append(asyncio.create_task(desk.follow_champion()))
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, desk.asked.set)
        yield
        for task in tasks:
            task.cancel()

    app = FastAPI(openapi_url=None, lifespan=lifespan)  # no /docs: its page loads a foreign host
    app.state.desk = desk

    @app.middleware("http")
    async def counted(request: Request, answer: Callable) -> Response:
        started, path = time.perf_counter(), request.url.path
        response = await answer(request)
        if path in ("/predict", "/gradcam"):
            desk.count(path, response.status_code, time.perf_counter() - started)
        response.headers.update(_HEADERS)
        return response

    _add_answers(app, desk)
    _add_facts(app, desk, pictures)
    return app


def _add_answers(app: FastAPI, desk: Desk) -> None:
    @app.post("/predict")
    async def predict(request: Request) -> Response:
        async def respond(photographs: list[tuple[str, bytes]]) -> Response:
            n, version = len(photographs), desk.champion.version
            which = [f"Photograph {i} of {n}" for i in range(1, n + 1)]
            read = (desk.read(data, w) for w, (_, data) in zip(which, photographs, strict=True))
            answers = await desk.recognise(await asyncio.gather(*read))
            desk.answers.update(answer.answer for answer in answers)
            named = zip(photographs, answers, strict=True)
            found = [{"file": name, **answer.as_json()} for (name, _), answer in named]
            return _json({"version": version, "predictions": found})

        return await _guarded(desk, request, respond)

    @app.post("/gradcam")
    async def gradcam(request: Request) -> Response:
        async def respond(photographs: list[tuple[str, bytes]]) -> Response:
            if len(photographs) != 1:
                raise _Refused(f"The request has {len(photographs)} photographs, and one is shown")
            pixels = await desk.read(photographs[0][1], "The photograph")
            loop, heat = asyncio.get_running_loop(), desk.champion.heat
            return _png(await loop.run_in_executor(desk.computing, heat, pixels))

        return await _guarded(desk, request, respond)


def _add_facts(app: FastAPI, desk: Desk, pictures: Path | None) -> None:
    @app.get("/")
    def page() -> Response:
        return Response(_PAGE.read_bytes(), media_type="text/html; charset=utf-8")

    @app.get("/champion")
    def facts() -> Response:
        limits = {"max_megabytes": MAX_MEGABYTES, "max_images": MAX_IMAGES}
        return _json(desk.champion.facts | limits | {"pictures": pictures is not None})

    @app.get("/nearest/{path:path}")
    def nearest(path: str) -> Response:
        try:
            if pictures is None or path not in desk.champion.paths:
                raise UnreadableImage("none")
            return _png(read_image(pictures / path, 160))
        except UnreadableImage:
            return _json({"error": "There is no such picture."}, 404)

    @app.get("/health")
    def health() -> Response:
        return _json({"status": "ok", "version": desk.champion.version})

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(desk.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _guarded(desk: Desk, request: Request, respond: Callable) -> Response:
    """What `respond` makes of a request's files; a mistake becomes a status and a sentence."""
    if desk.n_open >= MAX_REQUESTS:
        refused = _Refused("The server has as much to do as it takes; come again.", 503)
    else:
        desk.n_open += 1
        try:
            photographs = await _photographs(request)
            return await respond(photographs)
        except _Refused as error:
            refused = error
        except ClientDisconnect:
            refused = _Refused("The request was broken off")
        except Exception:  # the server goes on; its terminal has the reason, its answer has not
            _log.exception("a request ended in an error")
            refused = _Refused("The request cannot be answered")
        finally:
            desk.n_open -= 1
    # Read to its end: a client that still sends would not hear the answer.
    with suppress(Exception):
        async with asyncio.timeout(_BODY_S):
            async for _ in request.stream():
                pass
    headers = {"Retry-After": "1"} if refused.status == 503 else None
    return _json({"error": refused.message}, refused.status, headers)


async def _photographs(request: Request) -> list[tuple[str, bytes]]:
    """The files of a request, by name. Raises `_Refused` with what is wrong."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(_BODY_S):
            if kind == "multipart/form-data":
                parser = MultiPartParser(request.headers, _body(request), max_files=MAX_IMAGES)
                form = await parser.parse()
                try:
                    files = [file for _, file in form.multi_items() if not isinstance(file, str)]
                    found = [(file.filename or "", await file.read()) for file in files]
                finally:
                    await form.close()
            elif kind.startswith("image/") or kind == "application/octet-stream":
                found = [("", b"".join([part async for part in _body(request)]))]
            else:
                named = f"the content type {kind[:60]!r}" if kind else "no content type"
                raise _Refused(f"The request has {named}")
    except TimeoutError as error:
        raise _Refused(f"The request did not end within {_BODY_S:.0f} seconds", 408) from error
    except _Refused:
        raise
    except (MultiPartException, ValueError, LookupError) as error:
        reason = getattr(error, "message", "") or "it is damaged"
        problem = "".join(c if c.isprintable() else "?" for c in reason)[:120].rstrip(".")
        raise _Refused(f"The form cannot be read ({problem})") from error
    if not found:
        raise _Refused("The request has no file")
    return found


async def _body(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes, unpacked, within the limit. Raises `_Refused`."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise _Refused(f"The request is coded as {coding[:30]!r}, where gzip is understood")
    unpack = None if coding in ("identity", "") else zlib.decompressobj(32 + zlib.MAX_WBITS)
    left = MAX_REQUEST_MEGABYTES * 1_000_000
    async for part in request.stream():
        try:
            data = part if unpack is None else unpack.decompress(part, left + 1)
        except zlib.error as error:
            raise _Refused(f"The request's body is not {coding}, as it says") from error
        if (left := left - len(data)) < 0:
            raise _Refused(f"The request has more than {MAX_REQUEST_MEGABYTES} MB")
        yield data


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers, "application/json")


def _png(pixels: np.ndarray) -> Response:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png")


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Answers until it is stopped."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each broken form
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[listening])
