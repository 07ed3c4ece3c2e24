"""The contact sheet: every picture on it, whole, in order, with a caption that fits."""

import numpy as np
import pytest

from nutclf.evaluate.contact_sheet import COLUMNS, Section, Tile, contact_sheet

COLOURS = np.random.default_rng(0).integers(0, 255, (40, 3), np.uint8)


def tile(number, **look):
    pixels = np.broadcast_to(COLOURS[number], (16, 16, 3)).copy()
    words = {"above": "labelled almonds", "verdict": "looks like pecans", "below": f"{number}.png"}
    return Tile(pixels, **(words | look))


def sheet(n_suspects, n_pairs):
    """The figure, drawn, and its pixels [H, W, 3]."""
    pairs = [(tile(20 + 2 * i), tile(21 + 2 * i)) for i in range(n_pairs)]
    suspects = Section("Doubtful", "None found.", [(tile(i),) for i in range(n_suspects)])
    return drawn([suspects, Section("Twice", "None found either.", pairs)])


def drawn(sections):
    figure = contact_sheet(sections, "Audit $^$", "of images $}$")
    figure.canvas.draw()
    return figure, np.asarray(figure.canvas.buffer_rgba())[..., :3]


@pytest.mark.parametrize("n", [1, COLUMNS, COLUMNS + 1])
def test_every_picture_is_drawn_square_where_it_belongs(n):
    figure, pixels = sheet(n, 2)
    for number, ax in zip([*range(n), 20, 21, 22, 23], figure.axes, strict=True):
        box = ax.get_window_extent()
        assert box.width == pytest.approx(box.height)
        middle = pixels[int(figure.bbox.height - (box.y0 + box.y1) / 2), int((box.x0 + box.x1) / 2)]
        np.testing.assert_array_equal(middle, COLOURS[number])


def test_no_words_touch_other_words_or_a_picture_and_all_stay_on_the_sheet():
    figure, _ = sheet(13, 5)
    boxes = [each.get_window_extent() for each in (*figure.texts, *figure.axes)]
    for i, box in enumerate(boxes):
        assert 0 < box.x0 < box.x1 < figure.bbox.width
        assert 0 < box.y0 < box.y1 < figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_what_is_not_there_is_said():
    written = {text.get_text() for text in sheet(0, 0)[0].texts}
    assert {"None found.", "None found either.", "Audit $^$", "of images $}$"} <= written


def test_a_long_caption_keeps_its_ends_and_its_column():
    path = "train/a class with a long name/photograph number 0123456.jpeg"
    name = "looks like a class with a very long name"
    groups = [(tile(0, below=path, verdict=name),), (tile(1),)]
    figure, _ = drawn([Section("One", "", groups)])
    long = [text for text in figure.texts if "…" in text.get_text()]
    assert len(long) == 2
    assert long[1].get_text().startswith("train/") and long[1].get_text().endswith("0123456.jpeg")
    for text in long:
        assert text.get_window_extent().x1 < figure.axes[1].get_window_extent().x0


def test_the_badge_lies_on_the_picture():
    figure, _ = drawn([Section("One", "", [(tile(0, badge="1   0.0004"),)])])
    badge = next(text for text in figure.texts if text.get_text() == "1   0.0004")
    box, picture = badge.get_window_extent(), figure.axes[0].get_window_extent()
    assert picture.x0 < box.x0 < box.x1 < picture.x1
    assert picture.y0 < box.y0 < box.y1 < picture.y1
