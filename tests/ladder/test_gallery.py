import itertools

import numpy as np
import pytest

from nutclf.evaluate.diagnosis import Claim, diagnose
from nutclf.ladder.puzzle import Exhibit, gallery

CLASSES = [f"a longer nut {letter}" for letter in "abcdefghij"]
CLAIM = Claim(0.94, n=50)


def shown(matrix, classes=CLASSES, cause="predictions in shuffled order, labels in folder order"):
    return Exhibit("key", cause, np.asarray(matrix), diagnose(matrix, CLAIM, classes))


GOOD = 5 * np.eye(10, dtype=int)
RENAMED = np.roll(GOOD, 1, axis=1)
COLLAPSED = np.zeros((10, 10), int)
COLLAPSED[:, 3] = 5


@pytest.fixture(scope="module")
def figure():
    row = [shown(matrix) for matrix in (GOOD, RENAMED, COLLAPSED, GOOD, RENAMED)]
    return gallery(row, "A title", "a detail")


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_visible()]


def test_each_panel_says_accuracy_and_verdict(figure):
    below = [texts(ax)[-2:] for ax in figure.axes]
    assert below[0] == ["accuracy 1.00  (0.93-1.00)", "consistent"]
    assert below[1] == ["accuracy 0.00  (0.00-0.07)", "permuted"]
    assert below[2] == ["accuracy 0.10  (0.04-0.21)", "chance"]


def test_counts_are_printed_and_zeros_are_not(figure):
    assert texts(figure.axes[0])[:-2] == ["5"] * 10
    at = [text.get_position() for text in figure.axes[1].texts if text.get_text() == "5"]
    assert at == [((i + 1) % 10 + 0.5, i + 0.5) for i in range(10)], "row true, column predicted"


def test_a_wrong_verdict_has_another_colour_than_a_right_one(figure):
    right, renamed, collapsed, *_ = (ax.texts[-1].get_color() for ax in figure.axes)
    assert right != renamed == collapsed


def test_classes_are_named_once(figure):
    named = [[tick.get_text() for tick in ax.get_yticklabels()] for ax in figure.axes]
    assert named == [CLASSES, [], [], [], []]


def test_nothing_leaves_the_canvas_and_no_panel_touches_another(figure):
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0
    header = [text.get_window_extent() for text in figure.texts]
    assert max(box.y1 for box in boxes) < min(extent.y0 for extent in header)


def test_names_are_taken_literally():
    row = [shown(5 * np.eye(2, dtype=int), ["a$b$", "$\\frac{$"], "$\\frac{$ of it")]
    gallery(row, "$t$", "$d$").canvas.draw()


def test_matrices_of_different_classes_are_refused():
    with pytest.raises(ValueError, match="all of the same classes"):
        gallery([shown(GOOD), shown(5 * np.eye(2, dtype=int), ["a", "b"])], "", "")
    with pytest.raises(ValueError, match="one or more"):
        gallery([], "", "")
