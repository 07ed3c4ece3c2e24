"""The server as programs meet it: real requests, answered, or refused in a sentence."""

import base64
import http.client
import io
import json
import re
import threading

import numpy as np
import pytest
import uvicorn
from PIL import Image

from nutclf.serve import server
from nutclf.serve.answers import answer_files, open_champion

JSON = "application/json"
A_TEXT = "QUJD"


@pytest.fixture(scope="module")
def champion(with_champion):
    return open_champion(with_champion, "nutclf")


@pytest.fixture(scope="module")
def ask(champion):
    """Asks a server on the champion of the session: its status, and the body as text."""
    listening = server.listen("127.0.0.1", 0)
    app = server.application(champion)
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()

    def ask(method, path, body=None, content_type=None):
        port = listening.getsockname()[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, body, {"Content-Type": content_type or ""})
        answer = connection.getresponse()
        try:
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    yield ask
    running.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def post(ask):
    """Posts a body: the status, and what came back."""

    def post(body, content_type=JSON):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer = ask("POST", "/invocations", raw, content_type)
        return status, json.loads(answer)

    return post


@pytest.fixture(scope="module")
def file(nuts):
    return nuts / "valid" / "pecans" / "0.png"


@pytest.fixture(scope="module")
def text(file):
    return base64.b64encode(file.read_bytes()).decode()


def as_text(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def noise(mode, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


@pytest.fixture(scope="module")
def texts(text):
    return [text, *(as_text(Image.new("RGB", (50, 40), c)) for c in ("red", "blue"))]


def test_a_photograph_is_answered_as_predict_answers_it(post, text, file, with_champion):
    (expected,) = answer_files(with_champion, "nutclf", [file])
    assert post({"inputs": [text]}) == (200, {"predictions": [expected.found.as_json()]})


FORMS = {
    "inputs": lambda texts: {"inputs": texts},
    "inputs by column": lambda texts: {"inputs": {"image": texts}},
    "inputs by row": lambda texts: {"inputs": [{"image": text} for text in texts]},
    "instances": lambda texts: {"instances": texts},
    "instances by row": lambda texts: {"instances": [{"image": text} for text in texts]},
    "records": lambda texts: {"dataframe_records": [{"image": text} for text in texts]},
    "split": lambda texts: {
        "dataframe_split": {"columns": ["image"], "data": [[t] for t in texts]}
    },
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_mlflow_is_answered_one_or_many(post, texts, form):
    alone = [post(form([text]))[1]["predictions"][0] for text in texts]
    status, body = post(form(texts), f"{JSON}; charset=UTF-8")
    assert status == 200
    for answer, expected in zip(body["predictions"], alone, strict=True):
        assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)


def test_requests_that_come_together_get_their_own_answers(post, champion):
    images = [noise("L", (90, 60)), noise("RGBA", (90, 60)), noise("RGB", (1500, 1000))]
    texts = [as_text(image) for image in images]
    texts += ["\n".join(as_text(noise("RGB", (9, 9)))), as_text(noise("CMYK", (90, 60)), "JPEG")]
    alone = [
        champion.recognise(champion.read(base64.b64decode(text))[None])[0].as_json()
        for text in texts
    ]
    together = {}
    threads = [
        threading.Thread(target=lambda i=i: together.update({i: post({"inputs": [texts[i % 5]]})}))
        for i in range(15)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(15)] == [
        (200, {"predictions": [each]}) for each in alone
    ] * 3


REFUSALS = {
    "no base64": ({"inputs": ["no base64!", A_TEXT]}, "Photograph 1 of 2 is a text that is not"),
    "no image": ({"inputs": [A_TEXT]}, "it is not a JPEG, PNG, WebP"),
    "nothing": ({"inputs": [""]}, "it is empty"),
    "a bomb": (
        lambda: {"inputs": [as_text(Image.new("1", (20_000, 10_000)))]},
        "more than 100,000,000 pixels",
    ),
    "none": ({"inputs": []}, "has 0 photographs; send 1 to 64"),
    "none, by split": ({"dataframe_split": {"columns": ["image"], "data": []}}, "0 photographs"),
    "none, by records": ({"dataframe_records": []}, "0 photographs"),
    "too many": ({"inputs": [A_TEXT] * 65}, "has 65 photographs; send 1 to 64"),
    "too large": (lambda: {"inputs": ["A" * 28_000_000]}, "has 21.0 MB; send .* of up to 20 MB"),
    "pixels 0 to 1": ({"inputs": [[[[0.1, 0.2, 0.3]]]]}, "no text but list, and pixels are not"),
    "pixels by row": ({"instances": [[[[7, 8, 9]]], [[[7, 8, 9]]]]}, "pixels are not taken"),
    "a number": ({"dataframe_records": [{"image": 1.5}]}, "no text but float"),
    "a number alone": ({"inputs": 1}, "no text but int"),
    "null": ({"inputs": [None]}, "no text but NoneType"),
    "another column": ({"dataframe_records": [{"photo": A_TEXT}]}, "column 'image' is missing"),
    "no columns": ({"dataframe_split": {"data": [[A_TEXT]]}}, "column 'image' is missing"),
    "no data": ({"dataframe_split": {"columns": ["image"]}}, "without a column 'image'"),
    "wide rows": ({"dataframe_split": {"columns": ["image"], "data": [[A_TEXT] * 2]}}, "without"),
    "another field": ({"photos": [A_TEXT]}, "the fields 'photos', where one of"),
    "two fields": ({"inputs": [A_TEXT], "instances": [A_TEXT]}, "fields 'inputs', 'instances'"),
    "no field": ({}, "the fields none, where one of"),
    "a list": ([A_TEXT], "a list where an object is needed"),
    "no JSON": (b"hello", "a body of 5 bytes that is not JSON"),
    "no UTF-8": (b"\xff\xfe", "not JSON"),
    "endlessly deep": (b"[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize(("body", "because"), REFUSALS.values(), ids=REFUSALS)
def test_a_mistake_is_status_400_and_a_sentence(post, body, because):
    refused(post(body() if callable(body) else body), because)


@pytest.mark.parametrize("content_type", [None, "text/csv", "application/json; charset=latin-1"])
def test_another_content_type_is_named(post, text, content_type):
    refused(post({"inputs": [text]}, content_type), content_type or "no content type")


def test_a_request_beyond_the_limit_is_read_to_its_end_and_refused(post, text, monkeypatch):
    monkeypatch.setattr(server, "MAX_REQUEST_MEGABYTES", 1)
    refused(post({"inputs": ["A" * 1_100_000]}), "more than 1 MB in one request")
    assert post({"inputs": [text]})[0] == 200


def test_an_error_that_nobody_foresaw_is_a_sentence_too_and_the_server_goes_on(
    post, text, monkeypatch
):
    def fail(self, pixels):
        raise RuntimeError(f"in {__file__}")

    with monkeypatch.context() as patch:
        patch.setattr("nutclf.serve.photographs.Recogniser.recognise", fail)
        refused(post({"inputs": [text]}), "cannot be answered; send application/json")
    assert post({"inputs": [text]})[0] == 200


def test_the_other_addresses_are_those_of_mlflow_and_no_page_loads_a_foreign_host(ask):
    assert [ask("GET", path)[0] for path in ("/ping", "/health", "/version")] == [200] * 3
    assert ask("GET", "/invocations")[0] == 405
    assert [ask("GET", path)[0] for path in ("/docs", "/redoc", "/openapi.json")] == [404] * 3


def refused(answer, because):
    status, body = answer
    assert status == 400
    sentence = body["message"]
    assert set(body) == {"error_code", "message"}
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 500
    for leak in ("Traceback", "Error", ".py", "site-packages", "/home", "/tmp"):
        assert leak not in sentence
    assert re.search(because, sentence), sentence
