"""How fast the champion answers over HTTP, beside a bare loop of `model.predict` in this process.

Usage: python -m benchmarks.serve DATA [STORE [MODEL]]

First come the milliseconds of one photograph, once it is read: as the champion answers, without its
familiarity, and by its network of one view alone.

DATA is a folder train|valid|test/<class>/<image>; its valid photographs are sent as they lie there,
one a request. The bare loop reads the same files and predicts them one by one.
"""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path

import numpy as np

PORT = 8765
REQUESTS = 200
CLIENTS = (1, 8)
_WARM_UP = 16


def send(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and content of the server's answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=600)) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()


def ask(photograph: bytes) -> float:
    """Seconds from the request to the whole answer."""
    started = time.perf_counter()
    status, content = send("POST", "/predict", photograph, {"Content-Type": "image/jpeg"})
    if status != 200:
        raise RuntimeError(content.decode())
    return time.perf_counter() - started


def photographs_of(data: str) -> list[bytes]:
    """The valid photographs, as they lie there."""
    return [f.read_bytes() for f in sorted((Path(data) / "valid").rglob("*")) if f.is_file()]


@contextmanager
def serving(store: str, name: str) -> Iterator[subprocess.Popen]:
    """The server of a champion, in a process of its own, once it answers."""
    command = [sys.executable, "-m", "nutclf", "serve", "--port", str(PORT), "--model", name]
    server = subprocess.Popen([*command, "--store", store], env=os.environ)
    try:
        while True:
            with suppress(OSError):
                send("GET", "/health")
                break
            if server.poll() is not None:
                raise RuntimeError(f"the server ended with {server.returncode}")
            time.sleep(0.2)
        yield server
    finally:
        server.terminate()
        server.wait()


def bare(photographs: list[bytes], store: str, name: str) -> float:
    """Photographs a second of a loop over `model.predict`, reading included."""
    from nutclf.process import quiet

    quiet()
    from nutclf.data.reader import read_image
    from nutclf.track.models import load_metadata, load_model
    from nutclf.track.store import Store

    records, uri = Store.at(store, os.environ), f"models:/{name}@champion"
    model, size = load_model(records, uri), load_metadata(records, uri)["image_size"]
    for number, photograph in enumerate(photographs):
        if number == _WARM_UP:
            started = time.perf_counter()
        model.predict(read_image(photograph, size)[None], verbose=0)
    return (len(photographs) - _WARM_UP) / (time.perf_counter() - started)


def costs(photographs: list[bytes], store: str, name: str) -> None:
    """Prints the median and the quartiles of the milliseconds of each way.

    Each is asked about several photographs in a row, as a server is: the network that comes after
    another one is slower than the same one again.
    """
    from nutclf.serve.answers import open_champion
    from nutclf.serve.photographs import Recogniser
    from nutclf.track.models import load_metadata, load_model
    from nutclf.track.store import Store

    records, uri = Store.at(store, os.environ), f"models:/{name}@champion"
    champion, metadata = open_champion(records, name), load_metadata(records, uri)
    ways = {
        "as the champion answers": champion.recogniser,
        "without familiarity": Recogniser(load_model(records, uri), metadata),
        "one view alone": Recogniser(champion.network, metadata),
    }
    spent = {way: [] for way in ways}
    pixels = [champion.recogniser.read(photograph)[None] for photograph in photographs[:50]]
    for way, recogniser in [*ways.items()] * 4:
        for number, one in enumerate(pixels):
            started = time.perf_counter()
            recogniser.recognise(one)
            if number >= _WARM_UP:
                spent[way].append(1000 * (time.perf_counter() - started))
    for way, times in spent.items():
        low, middle, high = np.percentile(times, [25, 50, 75])
        print(f"{way}: {middle:.1f} ms ({low:.1f} to {high:.1f}, n = {len(times)})", flush=True)
    print()


def arguments() -> list[str]:
    """DATA, STORE and MODEL."""
    data, *given = sys.argv[1:4]
    return [data, *given, *["mlruns", "nutclf"][len(given) :]]


def main() -> None:
    """Prints a table."""
    data, store, name = arguments()
    sent = list(islice(cycle(photographs_of(data)), REQUESTS + _WARM_UP))
    loop = bare(sent, store, name)
    costs(sent, store, name)
    print("| clients | requests a second | of the bare loop | p50 | p95 | n |")
    print("|---|---|---|---|---|---|")
    print(f"| bare loop | {loop:.1f} | 1 | | | {REQUESTS} |", flush=True)
    with serving(store, name):
        for clients in CLIENTS:
            with ThreadPoolExecutor(clients) as pool:
                list(pool.map(ask, sent[:_WARM_UP]))
                started = time.perf_counter()
                seconds = list(pool.map(ask, sent[_WARM_UP:]))
                rate = len(seconds) / (time.perf_counter() - started)
            middle, late = np.percentile(seconds, [50, 95]) * 1000
            line = (
                f"| {clients} | {rate:.1f} | {rate / loop:.2f} | {middle:.0f} ms | {late:.0f} ms |"
            )
            print(line, f"{len(seconds)} |", flush=True)


if __name__ == "__main__":
    main()
