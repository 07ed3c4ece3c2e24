"""The server as browsers and programs meet it: requests answered, or refused in a sentence."""

import copy
import dataclasses
import gzip
import http.client
import io
import json
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from nutclf.evaluate.familiarity import Familiarity
from nutclf.serve import server
from nutclf.serve.answers import answer_files, open_champion

EDGE = "edge"
FORM = f"multipart/form-data; boundary={EDGE}"


@pytest.fixture(scope="module")
def champion(with_champion):
    found = open_champion(with_champion, "nutclf")
    found.recogniser.warm_up()
    return found


@pytest.fixture(scope="module")
def app(champion, nuts):
    """The server's program; `app.newer` is what it finds when it looks for a new champion."""
    app = server.application(champion, lambda known: app.newer, nuts)
    app.newer = None
    return app


@pytest.fixture(scope="module")
def ask(app, running):
    """Asks the server: status, headers and body."""
    with running(app) as port:

        def ask(method, path, body=None, headers=(), timeout=60):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
            try:
                connection.request(method, path, body, dict(headers))
                answer = connection.getresponse()
                return answer.status, dict(answer.headers), answer.read()
            finally:
                connection.close()

        yield ask


def form(*files):
    """The body of a form with these files, as browsers and curl write it."""
    parts = [
        f'--{EDGE}\r\nContent-Disposition: form-data; name="image"; filename="{i}.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
        + data
        + b"\r\n"
        for i, data in enumerate(files)
    ]
    return b"".join(parts) + f"--{EDGE}--\r\n".encode()


@pytest.fixture(scope="module")
def post(ask):
    """Posts to /predict: the status, and what came back."""

    def post(body, kind=FORM, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, _, answer = ask("POST", "/predict", body, {"Content-Type": kind} | named)
        return status, json.loads(answer)

    return post


@pytest.fixture(scope="module")
def photograph(nuts):
    return (nuts / "valid" / "pecans" / "0.png").read_bytes()


def picture(mode="RGB", size=(60, 40), seed=0, kind="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 4), np.uint8)
    return as_file(Image.fromarray(pixels, "RGBA").convert(mode), kind)


def as_file(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_a_photograph_is_answered_as_predict_answers_it(post, photograph, nuts, with_champion):
    (expected,) = answer_files(with_champion, "nutclf", [nuts / "valid" / "pecans" / "0.png"])
    status, body = post(form(photograph))
    assert (status, body["version"]) == (200, 1)
    assert body["predictions"] == [{"file": "0.jpg", **expected.found.as_json()}]


WAYS = {
    "bytes alone": (lambda data: data, "image/png", {}),
    "bytes of any kind": (lambda data: data, "application/octet-stream", {}),
    "a gzip form": (lambda data: gzip.compress(form(data)), FORM, {"content_encoding": "gzip"}),
    "names in capitals": (form, FORM.replace("multipart", "Multipart"), {"CONTENT_ENCODING": ""}),
    "a media type with more": (lambda data: data, "Image/PNG; name=x", {}),
}


@pytest.mark.parametrize(("write", "kind", "headers"), WAYS.values(), ids=WAYS)
def test_what_programs_and_proxies_send_is_understood(post, photograph, write, kind, headers):
    expected = post(form(photograph))[1]["predictions"][0] | {"file": ""}
    status, body = post(write(photograph), kind, **headers)
    assert status == 200
    assert body["predictions"][0] | {"file": ""} == expected


def test_requests_that_come_together_get_their_own_answers(post):
    images = [picture("L"), picture("RGBA", seed=1), picture("RGB", (300, 200), 2)]
    images.append(picture("CMYK", seed=3, kind="JPEG"))
    alone = [post(form(image))[1]["predictions"][0]["probabilities"] for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: post(form(images[i % 4], images[0])), range(16)))
    for i, (status, body) in enumerate(together):
        assert status == 200
        mine, first = (answer["probabilities"] for answer in body["predictions"])
        assert mine == pytest.approx(alone[i % 4], abs=1e-6)
        assert first == pytest.approx(alone[0], abs=1e-6)


REFUSALS = {
    "no image": (form(b"ABC"), FORM, "Photograph 1 of 1 is refused: it is not a JPEG, PNG, WebP"),
    "the second": (lambda: form(picture(), b"A"), FORM, "Photograph 2 of 2 is refused"),
    "an empty file": (form(b""), FORM, "it is empty"),
    "an empty form": (form(), FORM, "has no file"),
    "a field": (
        f'--{EDGE}\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--{EDGE}--'.encode(),
        FORM,
        "has no file",
    ),
    "no form": (b"hello", FORM, "The request has no file|form cannot be read"),
    "no boundary": (b"hello", "multipart/form-data", "form cannot be read"),
    "too many": (
        lambda: form(*[b"A"] * 65),
        FORM,
        r"Maximum number of files is 64\); send 1 to 64",
    ),
    "too large": (lambda: form(b"A" * 20_100_000), FORM, "has 20.1 MB; send .* of up to 20 MB"),
    "a bomb": (
        lambda: form(as_file(Image.new("1", (20_000, 10_000)))),
        FORM,
        "more than 100,000,000 pixels",
    ),
    "JSON": (b'{"inputs": []}', "application/json", "content type 'application/json'; send"),
    "deep JSON": (b"[" * 100_000, "application/json", "content type 'application/json'; send"),
    "no type": (b"A", "", "no content type"),
    "no bytes": (b"", "image/jpeg", "it is empty"),
}


@pytest.mark.parametrize(("body", "kind", "because"), REFUSALS.values(), ids=REFUSALS)
def test_a_mistake_is_status_400_and_a_sentence(post, body, kind, because):
    refused(post(body() if callable(body) else body, kind), because)


def test_codings_that_are_not_what_they_say_or_unknown_are_named(post, photograph):
    refused(post(form(photograph), content_encoding="gzip"), "body is not gzip, as it says")
    refused(post(form(photograph), content_encoding="br"), "coded as 'br', where gzip")


def test_a_request_beyond_the_limit_is_read_to_its_end_and_refused(post, photograph, monkeypatch):
    monkeypatch.setattr(server, "MAX_REQUEST_MEGABYTES", 1)
    refused(post(form(b"A" * 5_000_000)), "more than 1 MB")
    bomb = gzip.compress(b"A" * 5_000_000)
    refused(post(bomb, "image/jpeg", content_encoding="gzip"), "more than 1 MB")
    assert post(form(photograph))[0] == 200


def test_an_error_that_nobody_foresaw_is_a_sentence_too_and_the_server_goes_on(
    post, photograph, monkeypatch
):
    def fail(self, pixels):
        raise RuntimeError(f"in {__file__}")

    with monkeypatch.context() as patch:
        patch.setattr("nutclf.serve.photographs.Recogniser.recognise", fail)
        refused(post(form(photograph)), "cannot be answered; send")
    assert post(form(photograph))[0] == 200


def test_a_full_server_says_when_to_come_again(ask, photograph, monkeypatch):
    monkeypatch.setattr(server, "MAX_REQUESTS", 0)
    status, headers, body = ask("POST", "/predict", form(photograph), {"Content-Type": FORM})
    assert (status, headers["retry-after"]) == (503, "1")
    assert "come again" in json.loads(body)["error"]


def test_where_it_looked_is_a_picture(ask, photograph):
    status, headers, body = ask("POST", "/gradcam", form(photograph), {"Content-Type": FORM})
    assert (status, headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(body)).size == (32, 32)
    two = ask("POST", "/gradcam", form(photograph, photograph), {"Content-Type": FORM})
    refused((two[0], json.loads(two[2])), "has 2 photographs, and one is shown")


def test_the_page_loads_nothing_from_elsewhere(ask):
    status, headers, body = ask("GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert not re.search(rb"(src|href)=.?https?:", body)
    assert [ask("GET", path)[0] for path in ("/docs", "/redoc", "/openapi.json")] == [404] * 3


def test_what_is_served_is_said(ask):
    facts = json.loads(ask("GET", "/champion")[2])
    assert facts["classes"] == ["almonds", "pecans", "walnuts"]
    assert facts["study"] == "promoted"
    assert re.fullmatch(r"1\.000 \(12/12, 95% 0\.\d+-1\.000\)", facts["test_accuracy"])
    assert "#/experiments/" in facts["run"]
    assert json.loads(ask("GET", "/health")[2]) == {"status": "ok", "version": 1}


def test_only_training_photographs_that_an_answer_names_are_shown(ask, champion):
    path = sorted(champion.paths)[0].replace(" ", "%20")
    assert ask("GET", f"/nearest/{path}")[0] == 200
    for other in (
        "valid/pecans/0.png",
        "../conftest.py",
        "%2e%2e/%2e%2e/etc/passwd",
        "/etc/passwd",
    ):
        assert ask("GET", f"/nearest/{other}")[0] == 404


def test_requests_are_counted_in_the_text_that_prometheus_reads(ask, photograph):
    def counted():
        text = ask("GET", "/metrics")[2].decode()
        assert all(
            re.fullmatch(r"# TYPE \w+ \w+|\w+(\{.*\})? [\d.e+-]+", x) for x in text.splitlines()
        )
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")

    name = 'nutclf_requests_total{path="/predict",status="200"}'
    before = float(counted().get(name, 0))
    ask("POST", "/predict", form(photograph), {"Content-Type": FORM})
    after = counted()
    assert float(after[name]) == before + 1
    assert after["nutclf_champion_version"] == "1"
    assert (
        after['nutclf_request_seconds_bucket{le="+Inf"}'] == after["nutclf_request_seconds_count"]
    )


def test_a_photograph_like_no_other_is_unfamiliar_and_the_nearest_are_named(
    ask, app, champion, post, photograph
):
    """A new champion is served without a restart; this one has seen but the opposite of all."""
    known = champion.recogniser._known
    far = Familiarity(-known.bank, known.paths, known.threshold)
    recogniser = copy.copy(champion.recogniser)
    recogniser._known = far
    app.newer = dataclasses.replace(champion, version=2, recogniser=recogniser)
    try:
        app.state.desk.asked._loop.call_soon_threadsafe(app.state.desk.asked.set)
        deadline = time.monotonic() + 30
        while json.loads(ask("GET", "/health")[2])["version"] != 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        answer = post(form(photograph))[1]["predictions"][0]
        assert (answer["answer"], answer["label"]) == ("unfamiliar", "unfamiliar")
        assert len(answer["nearest"]) == 5
        assert set(answer["nearest"]) <= champion.paths
    finally:
        app.newer, app.state.desk.champion = None, champion


# The parser lets go of a file that was cut off, and does not close it first.
@pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.Spooled:ResourceWarning")
def test_random_and_broken_requests_end_in_a_status_below_500(ask, photograph, caplog):
    draw = random.Random(0)
    whole = form(photograph)
    kinds = [FORM, "image/png", "multipart/form-data", "text/plain", "\xe4", "application/json", ""]

    def broken():
        raw = bytearray(
            draw.choice([whole, photograph, form(photograph, b"x"), draw.randbytes(99)])
        )
        for _ in range(draw.randrange(4)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
        raw = bytes(raw[: draw.randrange(len(raw) + 1)] if draw.random() < 0.5 else raw)
        headers = {"Content-Type": draw.choice(kinds)}
        if draw.random() < 0.2:
            headers["Content-Encoding"] = draw.choice(["gzip", "br", "identity", "\xff"])
        path = draw.choice(["/predict", "/predict", "/predict", "/gradcam", "/nearest/%00", "/%ff"])
        status, _, body = ask("POST" if path[1] in "pg" else "GET", path, raw, headers)
        assert status < 500, (status, path, headers, raw)
        assert b"Traceback" not in body

    for _ in range(200):
        broken()
    assert "ended in an error" not in caplog.text


def test_a_client_that_goes_away_in_the_middle_leaves_no_traceback(ask, photograph, caplog):
    with pytest.raises(TimeoutError):
        more = {"Content-Type": FORM, "Content-Length": "1000000"}
        ask("POST", "/predict", form(photograph), more, timeout=0.5)
    assert ask("POST", "/predict", form(photograph), {"Content-Type": FORM})[0] == 200
    assert "ended in an error" not in caplog.text


def refused(answer, because):
    status, body = answer
    assert (status, set(body)) == (400, {"error"})
    sentence = body["error"]
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 500
    for leak in ("Traceback", "Error", ".py", "site-packages", "/home", "/tmp"):
        assert leak not in sentence
    assert re.search(because, sentence), sentence
