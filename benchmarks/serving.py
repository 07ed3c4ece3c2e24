"""How fast the champion answers over HTTP: requests a second, and latency, warm.

Usage: python -m benchmarks.serving DATA [STORE [MODEL]]

DATA is a folder train|valid|test/<class>/<image>; its valid photographs are sent as they lie there.
One client that waits for each answer, then four at once.
"""

import base64
import http.client
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import numpy as np

PORT = 8765
REQUESTS = {1: 200, 32: 30}
CLIENTS = (1, 4)
_WARM_UP = 5


def bodies(folder: Path, n_images: int) -> list[bytes]:
    """Requests of `n_images` photographs each, as many as are sent."""
    files = sorted(file for file in (folder / "valid").rglob("*") if file.is_file())
    texts = cycle(base64.b64encode(file.read_bytes()).decode() for file in files)
    count = REQUESTS[n_images] + _WARM_UP
    return [json.dumps({"inputs": list(islice(texts, n_images))}).encode() for _ in range(count)]


def ask(body: bytes) -> float:
    """Seconds from the request to the whole answer."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=600)
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
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
            connection.request("GET", "/ping")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    raise RuntimeError(f"the server ended with {server.returncode}")


def main() -> None:
    """Prints a table."""
    folder, store = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "mlruns"
    model = sys.argv[3] if len(sys.argv) > 3 else "nutclf"
    command = [sys.executable, "-m", "nutclf", "serve", "--port", str(PORT), "--model", model]
    server = subprocess.Popen([*command, "--store", store], env=os.environ)
    try:
        wait_for(server)
        print("| photographs a request | clients | requests a second | p50 | p95 | n |")
        print("|---|---|---|---|---|---|")
        for n_images in REQUESTS:
            sent = bodies(folder, n_images)
            for clients in CLIENTS:
                with ThreadPoolExecutor(clients) as pool:
                    list(pool.map(ask, sent[:_WARM_UP]))
                    started = time.perf_counter()
                    seconds = list(pool.map(ask, sent[_WARM_UP:]))
                    rate = len(seconds) / (time.perf_counter() - started)
                middle, late = np.percentile(seconds, [50, 95]) * 1000
                print(
                    f"| {n_images} | {clients} | {rate:.1f} | {middle:.0f} ms | {late:.0f} ms "
                    f"| {len(seconds)} |",
                    flush=True,
                )
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
