"""How fast the champion answers over HTTP, beside a bare loop of `model.predict` in this process.

Usage: python -m benchmarks.serve DATA [STORE [MODEL]]

DATA is a folder train|valid|test/<class>/<image>; its valid photographs are sent as they lie there,
one a request. The bare loop reads the same files and predicts them one by one.
"""

import http.client
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import numpy as np

PORT = 8765
REQUESTS = 200
CLIENTS = (1, 8)
_WARM_UP = 16


def ask(photograph: bytes) -> float:
    """Seconds from the request to the whole answer."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=600)
    connection.request("POST", "/predict", photograph, {"Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(content.decode())
    return time.perf_counter() - started


def wait_for(server: subprocess.Popen) -> None:
    """Until the server answers."""
    while server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
        try:
            connection.request("GET", "/health")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    raise RuntimeError(f"the server ended with {server.returncode}")


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


def main() -> None:
    """Prints a table."""
    store = sys.argv[2] if len(sys.argv) > 2 else "mlruns"
    name = sys.argv[3] if len(sys.argv) > 3 else "nutclf"
    files = sorted(f for f in (Path(sys.argv[1]) / "valid").rglob("*") if f.is_file())
    sent = [f.read_bytes() for f in islice(cycle(files), REQUESTS + _WARM_UP)]
    loop = bare(sent, store, name)
    print("| clients | requests a second | of the bare loop | p50 | p95 | n |")
    print("|---|---|---|---|---|---|")
    print(f"| bare loop | {loop:.1f} | 1 | | | {REQUESTS} |", flush=True)
    command = [sys.executable, "-m", "nutclf", "serve", "--port", str(PORT), "--model", name]
    server = subprocess.Popen([*command, "--store", store], env=os.environ)
    try:
        wait_for(server)
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
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
