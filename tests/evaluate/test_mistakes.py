"""Which answers are shown, and how: the surest mistakes, and right answers of every class."""

import numpy as np
import pytest

from nutclf.evaluate.contact_sheet import gradcam_sheet, mistakes_sheet
from nutclf.evaluate.mistakes import Answer, spotlight, surest_hits, worst_mistakes
from nutclf.evaluate.predictions import prediction_table

CLASSES = ("almonds", "pecans", "walnuts")
Y_PROB = np.array(
    [
        [0.9, 0.1, 0.0],  # a: right
        [0.2, 0.7, 0.1],  # b: almonds taken for pecans, 0.7
        [0.0, 0.6, 0.4],  # c: right
        [0.8, 0.1, 0.1],  # d: pecans taken for almonds, 0.8
        [0.1, 0.2, 0.7],  # e: right
        [0.7, 0.2, 0.1],  # f: walnuts taken for almonds, 0.7
        [0.95, 0.0, 0.05],  # g: right
    ]
)
TABLE = prediction_table(list("abcdefg"), np.array([0, 0, 1, 1, 2, 2, 0]), Y_PROB, CLASSES)
PIXELS = np.zeros((16, 16, 3), np.uint8)
WRONG = Answer("valid/pecans/1.png", "pecans", "almonds", 0.8125)
RIGHT = Answer("valid/walnuts/2.png", "walnuts", "walnuts", 0.75)


def test_the_surest_mistake_comes_first_and_equals_by_path():
    found = worst_mistakes(TABLE, 10)
    assert [answer.path for answer in found] == ["d", "b", "f"]
    assert found[0] == Answer("d", "pecans", "almonds", 0.8)
    assert [answer.path for answer in worst_mistakes(TABLE.iloc[::-1], 2)] == ["d", "b"]


def test_every_class_has_its_turn_among_the_right_answers():
    assert [answer.path for answer in surest_hits(TABLE, 4)] == ["g", "e", "c", "a"]
    assert surest_hits(TABLE.iloc[:0], 5) == worst_mistakes(TABLE.iloc[:0], 5) == []


def words(figure):
    return [text.get_text() for text in figure.texts]


def test_a_mistake_says_what_it_is_what_was_said_and_how_sure():
    written = words(mistakes_sheet([(WRONG, PIXELS)], "Worst mistakes", "1 of 9"))
    for line in ("is pecans", "said almonds", "valid/pecans/1.png", "1   0.812"):
        assert line in written
    assert "There are none." in words(mistakes_sheet([], "Worst mistakes", "0 of 9"))


def test_each_answer_stands_beside_its_map_under_its_own_heading():
    heat = np.ones((2, 2))
    figure = gradcam_sheet([(RIGHT, PIXELS, heat), (WRONG, PIXELS, heat)], "Where", "it looked")
    assert len(figure.axes) == 4
    order = words(figure)
    wrong, right = order.index("said almonds"), order.index("said walnuts")
    assert order.index("Wrong answers, the surest first") < wrong
    assert wrong < order.index("Right answers, the surest of each class") < right
    assert "what says almonds" in order


def test_without_heat_the_picture_is_grey():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    found = spotlight(pixels, np.zeros((2, 2)))
    np.testing.assert_allclose(found, np.repeat(luma[..., None], 3, axis=2), atol=1)


@pytest.mark.parametrize("brightness", [0, 128, 255])
def test_heat_is_a_colour_on_any_brightness_where_the_map_says(brightness):
    pixels = np.full((8, 8, 3), brightness, np.uint8)
    found = spotlight(pixels, np.array([[1.0, 0], [0, 0]])).astype(int)
    warmth = found[..., 0] - found[..., 2]
    assert warmth[0, 0] > 100
    assert abs(warmth[7, 7]) < 5 and abs(warmth[0, 7]) < 5
