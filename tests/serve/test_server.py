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

from nutclf.serve import server as one_sentence
from nutclf.serve.answers import answer_files, open_champion
from nutclf.serve.server import application, listen

JSON = "application/json"
SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


@pytest.fixture(scope="module")
def champion(with_champion):
    return open_champion(with_champion, "nutclf")


@pytest.fixture(scope="module")
def port(champion):
    """Of a server on the champion of the session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SERVING, "")  # MLflow's scoring server sets it, and leaves it
        heard = listen("127.0.0.1", 0)
        app = application(champion)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([heard],))
        thread.start()
        yield heard.getsockname()[1]
        server.should_exit = True
        thread.join()
        patch.delenv(SERVING)


@pytest.fixture(scope="module")
def post(port):
    """Posts a body and gives the status and what came back."""

    def post(body, content_type=JSON, path="/invocations"):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(
            "POST", path, raw, {"Content-Type": content_type} if content_type else {}
        )
        answer = connection.getresponse()
        try:
            return answer.status, json.load(answer)
        finally:
            connection.close()

    return post


@pytest.fixture(scope="module")
def file(nuts):
    return nuts / "valid" / "pecans" / "0.png"


@pytest.fixture(scope="module")
def text(file):
    return base64.b64encode(file.read_bytes()).decode()


def as_text(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_photograph_is_answered_as_predict_answers_it(post, text, file, with_champion):
    status, body = post({"inputs": [text]})
    (expected,) = answer_files(with_champion, "nutclf", [file])
    assert status == 200
    assert body == {"predictions": [expected.found.as_json()]}


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
@pytest.mark.parametrize("n", [1, 3])
def test_every_form_of_mlflow_is_answered_one_or_many(post, text, nuts, form, n):
    texts = [text, *(as_text(Image.new("RGB", (50, 40), c)) for c in ("red", "blue"))][:n]
    one_by_one = [post({"inputs": [each]})[1]["predictions"][0] for each in texts]
    status, body = post(form(texts))
    assert status == 200
    for answer, alone in zip(body["predictions"], one_by_one, strict=True):
        assert answer["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-6)


def noise(mode, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


PHOTOGRAPHS = {
    "grey": lambda: as_text(noise("L", (90, 60))),
    "16-bit grey": lambda: as_text(
        Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80))
    ),
    "with alpha": lambda: as_text(noise("RGBA", (90, 60))),
    "palette": lambda: as_text(noise("P", (90, 60))),
    "black and white": lambda: as_text(noise("1", (90, 60))),
    "CMYK JPEG": lambda: as_text(noise("CMYK", (90, 60)), "JPEG"),
    "WebP": lambda: as_text(noise("RGB", (90, 60)), "WEBP"),
    "one pixel": lambda: as_text(noise("RGB", (1, 1))),
    "a strip": lambda: as_text(noise("RGB", (3000, 2))),
    "large": lambda: as_text(noise("RGB", (3000, 2000)), "JPEG"),
    "broken into lines": lambda: "\n".join(as_text(noise("RGB", (9, 9)))),
}


@pytest.mark.parametrize("photograph", PHOTOGRAPHS.values(), ids=PHOTOGRAPHS)
def test_what_the_reader_takes_is_answered_as_predict_answers_it(post, photograph, champion):
    text = photograph()
    pixels = champion.read(base64.b64decode(text))
    (expected,) = champion.recognise(pixels[None])
    assert post({"inputs": [text]}) == (200, {"predictions": [expected.as_json()]})


def cut_short():
    return base64.b64encode(base64.b64decode(PHOTOGRAPHS["CMYK JPEG"]())[:900]).decode()


def bomb():
    return as_text(Image.new("1", (20_000, 10_000)))


A_TEXT = "QUJD"
REFUSALS = {
    "no base64": ({"inputs": ["no base64!", A_TEXT]}, "Photograph 1 of 2 is a text that is not"),
    "no image": ({"inputs": ["QUJD"]}, "it is not a JPEG, PNG, WebP"),
    "cut short": (lambda: {"inputs": [cut_short()]}, "cannot be decoded"),
    "nothing": ({"inputs": [""]}, "it is empty"),
    "a bomb": (
        lambda: {"inputs": [as_text(Image.new("1", (20_000, 10_000)))]},
        "more than 100,000,000 pixels",
    ),
    "none": ({"inputs": []}, "has 0 photographs; send 1 to 64"),
    "none, by instances": ({"instances": []}, "has 0 photographs"),
    "none, by split": ({"dataframe_split": {"columns": ["image"], "data": []}}, "0 photographs"),
    "none, by records": ({"dataframe_records": []}, "without a column 'image'"),
    "too many": ({"inputs": ["QUJD"] * 65}, "has 65 photographs; send 1 to 64"),
    "too large": (lambda: {"inputs": ["A" * 28_000_000]}, "has 21.0 MB; send .* of up to 20 MB"),
    "pixels 0 to 1": ({"inputs": [[[[0.1, 0.2, 0.3]]]]}, "no text but list, and pixels are not"),
    "pixels by row": ({"instances": [[[[7, 8, 9]]], [[[7, 8, 9]]]]}, "pixels are not taken"),
    "a number": ({"dataframe_records": [{"image": 1.5}]}, "no text but float"),
    "null": ({"inputs": [None]}, "no text but NoneType"),
    "ragged": ({"inputs": [[1], [1, 2]]}, "pixels are not taken"),
    "another column": ({"dataframe_records": [{"photo": A_TEXT}]}, "without a column 'image'"),
    "no columns": ({"dataframe_split": {"data": [[A_TEXT]]}}, "without a column 'image'"),
    "wide rows": ({"dataframe_split": {"columns": ["image"], "data": [[A_TEXT] * 2]}}, "without"),
    "another field": ({"photos": [A_TEXT]}, "the fields 'photos', where one of"),
    "two fields": ({"inputs": [A_TEXT], "instances": [A_TEXT]}, "fields 'inputs', 'instances'"),
    "no field": ({}, "the fields none, where one of"),
    "a list": ([A_TEXT], "a list where an object is needed"),
    "a chat": ({"messages": [{"role": "user", "content": "hi"}]}, "the fields 'messages'"),
    "no JSON": (b"hello", "a body of 5 bytes that is not JSON"),
    "no UTF-8": (b"\xff\xfe", "not JSON"),
    "endlessly deep": (b"[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize(("body", "because"), REFUSALS.values(), ids=REFUSALS)
def test_a_mistake_is_status_400_and_a_sentence_and_the_server_goes_on(post, text, body, because):
    refused(post(body() if callable(body) else body), because)
    assert post({"inputs": [text]})[0] == 200


@pytest.mark.parametrize(
    "content_type", [None, "image/jpeg", "text/csv", "application/vnd.apache.parquet",
                     "application/json; charset=latin-1"]
)  # fmt: skip
def test_another_content_type_is_named(post, text, content_type):
    refused(post({"inputs": [text]}, content_type), content_type or "no content type")


def test_a_request_beyond_the_limit_is_read_to_its_end_and_refused(post, text, monkeypatch):
    monkeypatch.setattr(one_sentence, "MAX_REQUEST_MEGABYTES", 1)
    refused(post({"inputs": ["A" * 1_100_000]}), "more than 1 MB in one request")
    assert post({"inputs": [text]})[0] == 200


def test_an_error_that_nobody_foresaw_is_a_sentence_too(post, text, monkeypatch):
    """MLflow answers it with a stack trace."""

    def fail(self, pixels):
        raise RuntimeError(f"in {__file__}")

    monkeypatch.setattr("nutclf.serve.recognise.Recogniser.recognise", fail)
    refused(post({"inputs": [text]}), "send application/json")


def test_requests_that_come_together_get_their_own_answers(post):
    texts = [PHOTOGRAPHS[name]() for name in ("grey", "with alpha", "large", "a strip")] * 4
    alone = {text: post({"inputs": [text]}) for text in set(texts)}
    together = {}
    threads = [
        threading.Thread(target=lambda i=i: together.update({i: post({"inputs": [texts[i]]})}))
        for i in range(len(texts))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(len(texts))] == [alone[text] for text in texts]


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
