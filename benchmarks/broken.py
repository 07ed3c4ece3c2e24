"""What the server makes of random and broken requests: statuses, and its memory between them.

Usage: python -m benchmarks.broken DATA [STORE [MODEL]]

DATA as for `benchmarks.serve`. A request is a form, a photograph or noise, with bytes changed, cut
off or under a wrong name; what comes back with status 500 or a traceback ends the run.
"""

import os
import random
from collections import Counter
from pathlib import Path

from benchmarks.serve import arguments, photographs_of, send, serving

REQUESTS, LOOKS = 10_000, 5
FORM = "multipart/form-data; boundary=x"
KINDS = (FORM, "image/jpeg", "multipart/form-data", "text/plain", "\xe4", "application/json", "")
CODINGS = ("gzip", "br", "identity", "\xff")
PATHS = ("/predict", "/predict", "/gradcam", "/nearest/%00", "/nearest/../x", "/%ff", "/metrics")


def drawn(draw: random.Random, photographs: list[bytes]) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, body and headers."""
    photograph = draw.choice(photographs)
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = bytearray(draw.choice([head + photograph + b"\r\n--x--\r\n", photograph, b"noise" * 9]))
    for _ in range(draw.randrange(4)):
        body[draw.randrange(len(body))] = draw.randrange(256)
    if draw.random() < 0.5:
        del body[draw.randrange(len(body)) :]
    headers = {"Content-Type": draw.choice(KINDS)}
    if draw.random() < 0.2:
        headers["Content-Encoding"] = draw.choice(CODINGS)
    path = draw.choice(PATHS)
    return draw.choice(["POST", "POST", "POST", "GET", "PUT"]), path, bytes(body), headers


def ask(method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
    """The status of the answer."""
    status, said = send(method, path, body, headers)
    if status >= 500 or b"Traceback" in said:
        raise RuntimeError(f"{status} to {method} {path} {headers}: {said[:200]}")
    return status


def resident(pid: int) -> int:
    """Megabytes of a process that lie in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 10**6


def main() -> None:
    """Prints statuses and memory after each part of the requests."""
    data, store, name = arguments()
    photographs, draw, statuses = photographs_of(data), random.Random(0), Counter()
    with serving(store, name) as server:
        for part in range(LOOKS):
            for _ in range(REQUESTS // LOOKS):
                statuses[ask(*drawn(draw, photographs))] += 1
            told = ", ".join(f"{status}: {n}" for status, n in sorted(statuses.items()))
            done = (part + 1) * REQUESTS // LOOKS
            print(f"{done} requests ({told}), {resident(server.pid)} MB", flush=True)


if __name__ == "__main__":
    main()
