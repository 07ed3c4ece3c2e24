"""The sheets of answers: what was said, what it is, and how sure."""

import numpy as np

from nutclf.evaluate.mistakes import Answer, gradcam_sheet, mistakes_sheet

PIXELS = np.zeros((16, 16, 3), np.uint8)
WRONG = Answer("valid/pecans/1.png", "pecans", "almonds", 0.8125)
RIGHT = Answer("valid/walnuts/2.png", "walnuts", "walnuts", 0.75)


def words(figure):
    return [text.get_text() for text in figure.texts]


def test_a_mistake_says_what_it_is_what_was_said_and_how_sure():
    written = words(mistakes_sheet([(WRONG, PIXELS)], "Worst mistakes", "1 of 9"))
    for line in ("is pecans", "said almonds", "valid/pecans/1.png", "1   0.812"):
        assert line in written


def test_no_mistake_is_said():
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
