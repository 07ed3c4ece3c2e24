"""The contact sheet: every picture on it, whole, in order, with a caption that fits."""

import numpy as np
import pytest

from nutclf.evaluate.contact_sheet import COLUMNS, Section, Tile, contact_sheet

COLOURS = np.random.default_rng(0).integers(0, 255, (40, 3), np.uint8)


def tile(number, **look):
    pixels = np.broadcast_to(COLOURS[number], (16, 16, 3)).copy()
    words = {"above": "labelled almonds", "verdict": "looks like pecans", "below": f"{number}.png"}
    return Tile(pixels, **(words | look))


def drawn(figure):
    """The figure as pixels [H, W, 3]."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def sheet(n_suspects, n_pairs):
    pairs = [(tile(20 + 2 * i), tile(21 + 2 * i)) for i in range(n_pairs)]
    suspects = Section("Doubtful", "None found.", [(tile(i),) for i in range(n_suspects)])
    twice = Section("Twice", "None found either.", pairs)
    return contact_sheet([suspects, twice], "Audit", "of images")


def places(figure):
    """Left, top, right and bottom of each picture, pixels from the upper left corner."""
    height = figure.bbox.height
    boxes = [ax.get_window_extent() for ax in figure.axes]
    return [(box.x0, height - box.y1, box.x1, height - box.y0) for box in boxes]


@pytest.mark.parametrize("n", [1, COLUMNS, COLUMNS + 1])
def test_every_picture_is_drawn_where_it_belongs(n):
    figure = sheet(n, 2)
    pixels = drawn(figure)
    assert len(figure.axes) == n + 4
    order = [*range(n), 20, 21, 22, 23]
    for number, (left, top, right, bottom) in zip(order, places(figure), strict=True):
        middle = pixels[int((top + bottom) / 2), int((left + right) / 2)]
        np.testing.assert_array_equal(middle, COLOURS[number])


def test_pictures_are_square_do_not_overlap_and_stay_on_the_sheet():
    figure = sheet(13, 5)
    boxes = places(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert right - left == pytest.approx(bottom - top)
        assert 0 < left < right < width
        assert 0 < top < bottom < height
        for other in boxes[i + 1 :]:
            apart = other[0] >= right or other[2] <= left or other[1] >= bottom or other[3] <= top
            assert apart


def test_no_words_touch_other_words_or_a_picture():
    figure = sheet(13, 5)
    drawn(figure)
    words = [(text, text.get_window_extent()) for text in figure.texts]
    for i, (text, box) in enumerate(words):
        assert box.x1 < figure.bbox.width
        assert box.y0 > 0
        for other, another in words[i + 1 :]:
            assert not box.overlaps(another), (text.get_text(), other.get_text())
        for ax in figure.axes:
            assert not box.overlaps(ax.get_window_extent()), text.get_text()


def test_what_is_not_there_is_said():
    written = {text.get_text() for text in sheet(0, 0).texts}
    assert {"None found.", "None found either.", "Audit", "of images"} <= written


def test_a_long_caption_keeps_its_ends_and_its_column():
    path = "train/a class with a long name/photograph number 0123456.jpeg"
    name = "looks like a class with a very long name"
    group = Section("One", "", [(tile(0, below=path, verdict=name), tile(1))])
    figure = contact_sheet([group], "Audit", "")
    drawn(figure)
    below = next(text for text in figure.texts if text.get_text().startswith("train/"))
    assert below.get_text().endswith("0123456.jpeg")
    (_, _, right, _), _ = places(figure)
    for text in figure.texts:
        if text.get_text().startswith(("train/", "looks like a")):
            assert text.get_window_extent().x1 < right + 5


def test_dollars_and_underscores_are_no_mathematics():
    drawn(contact_sheet([Section("$x_$", "", [(tile(0, below="$_{$.png"),)])], "$^$", "$}$"))


def test_the_badge_lies_on_the_picture():
    figure = contact_sheet([Section("One", "", [(tile(0, badge="1   0.0004"),)])], "Audit", "")
    drawn(figure)
    badge = next(text for text in figure.texts if text.get_text() == "1   0.0004")
    (left, top, right, bottom) = places(figure)[0]
    box, height = badge.get_window_extent(), figure.bbox.height
    assert left < box.x0 < box.x1 < right
    assert top < height - box.y1 < height - box.y0 < bottom
