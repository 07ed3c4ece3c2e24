"""From probabilities to an answer: calibrated, or "unsure"."""

import base64
import io

import keras
import numpy as np
import pytest
from PIL import Image

from nutclf.serve.photographs import UNSURE, Photographs, Recognised, Recogniser

CLASSES = ["almonds", "pecans", "walnuts", "cashews"]
VALUES = {"almonds": 0.05, "pecans": 0.6, "walnuts": 0.25, "cashews": 0.1}


@pytest.fixture(scope="module")
def model():
    """The share of red says pecans; its answer to black is known without weights."""
    pixels = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(pixels)
    kernel = np.zeros((3, 4), np.float32)
    kernel[0, 1] = 0.02
    dense = keras.layers.Dense(4, activation="softmax")
    whole = keras.Model(pixels, dense(pooled))
    dense.set_weights([kernel, np.zeros(4, np.float32)])
    return whole


def red(value, n=1):
    pixels = np.zeros((n, 8, 8, 3), np.uint8)
    pixels[..., 0] = value
    return pixels


@pytest.mark.parametrize(("known", "logit"), [({}, 2), ({"temperature": 2.0}, 1)])
def test_the_temperature_is_applied_once_and_is_1_in_models_without_one(model, known, logit):
    metadata = {"classes": CLASSES, "image_size": 8} | known
    (answer,) = Recogniser(model, metadata).recognise(red(100))
    expected = np.exp([0, logit, 0, 0]) / np.exp([0, logit, 0, 0]).sum()
    assert list(answer.probabilities.values()) == pytest.approx(expected, abs=1e-5)
    assert answer.label == "pecans"


def test_the_threshold_parts_answers_from_unsure(model):
    metadata = {"classes": CLASSES, "image_size": 8, "threshold": 0.5, "coverage": 0.95}
    sure, unsure = Recogniser(model, metadata).recognise(np.concatenate([red(100), red(50)]))
    assert sure.confidence > 0.5 > unsure.confidence
    assert (sure.label, unsure.label) == ("pecans", UNSURE)
    assert next(iter(unsure.top3)) == "pecans"


def test_many_photographs_keep_their_order(model):
    values = np.random.default_rng(0).permutation(70) * 3
    pixels = np.concatenate([red(value) for value in values])
    answers = Recogniser(model, {"classes": CLASSES, "image_size": 8}).recognise(pixels)
    confidences = [answer.probabilities["pecans"] for answer in answers]
    assert np.argsort(confidences).tolist() == np.argsort(values).tolist()


@pytest.mark.parametrize("before", ["", "data:image/png;base64,", " DATA:image/x-ms-bmp;BASE64,\n"])
def test_base64_may_have_line_breaks_and_what_browsers_put_before_it(model, before):
    file, stripes = io.BytesIO(), red(200)[0]
    stripes[::2] = 0
    Image.fromarray(stripes).save(file, "PNG")
    photographs = Photographs(Recogniser(model, {"classes": CLASSES, "image_size": 8}))
    (answer,) = photographs.predict([before + base64.encodebytes(file.getvalue()).decode()])
    assert answer["label"] == "pecans"


def test_an_answer_in_a_line_and_as_json():
    assert Recognised(VALUES, 0.6).label == "pecans", "at the threshold"
    assert Recognised(VALUES).line() == "pecans 0.600, walnuts 0.250, cashews 0.100"
    assert Recognised(VALUES, 0.7).line() == "unsure: pecans 0.600, walnuts 0.250, cashews 0.100"
    assert Recognised(VALUES, 0.7).as_json() == {
        "answer": "unsure",
        "label": "unsure",
        "confidence": 0.6,
        "probabilities": VALUES,
        "top3": [
            {"label": "pecans", "confidence": 0.6},
            {"label": "walnuts", "confidence": 0.25},
            {"label": "cashews", "confidence": 0.1},
        ],
    }


def test_a_class_that_is_called_as_an_answer_is_no_answer():
    said = Recognised({"unsure": 0.9, "pecans": 0.1}, 0.7)
    assert (said.answer, said.line()) == ("class", "'unsure' 0.900, pecans 0.100")
    assert Recognised({"unsure": 0.6, "pecans": 0.4}, 0.7).line().startswith("unsure: 'unsure' 0.6")
