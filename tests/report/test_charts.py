"""The charts' geometry: round ticks, points where they belong."""

import re

import pytest

from nutclf.report.page import HEIGHT, WIDTH, Series, chart, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1.33, 1.42, [1.32, 1.34, 1.36, 1.38, 1.40, 1.42]),
        (0.0001, 0.003, [0, 0.001, 0.002, 0.003]),
        (0.5, 0.5, [0.5, 0.6]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 6, [0, 2, 4, 6]), (1, 3, [1, 2, 3]), (0, 0, [0]), (1, 9, [2, 4, 6, 8])],
)
def test_what_is_counted_has_whole_ticks_within_the_data(low, high, expected):
    assert ticks(low, high, whole=True) == expected


def test_points_lie_in_the_frame_and_higher_values_higher():
    line = Series("loss", "", [(1, 0.9), (2, 0.3), (3, 0.6)], ["a", "b", "c"])
    found = chart("loss", "epoch", [line])
    (drawn,) = found.drawn
    xs, ys = [x for x, _, _ in drawn.dots], [y for _, y, _ in drawn.dots]
    assert xs == sorted(xs)
    assert ys[0] < ys[2] < ys[1], "SVG counts downwards"
    assert all(found.left <= x <= WIDTH for x in xs)
    assert all(0 <= y <= HEIGHT for y in ys)
    assert [title for *_, title in drawn.dots] == ["a", "b", "c"]


def test_steps_hold_until_the_next_value():
    found = chart("best", "trial", [Series("best", "", [(0, 1.0), (2, 0.5)], steps=True)])
    assert re.fullmatch(r"M[\d.]+ [\d.]+H[\d.]+V[\d.]+", found.drawn[0].path)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((1.33, 1.42), ["1.32", "1.34", "1.36", "1.38", "1.40", "1.42"]),
        ((1.5e-4, 3e-4), ["1.5e-4", "2.0e-4", "2.5e-4", "3.0e-4"]),
        ((0, 4e-3), ["0", "1.0e-3", "2.0e-3", "3.0e-3", "4.0e-3"]),
    ],
)
def test_labels_of_an_axis_are_alike_and_short(values, labels):
    found = chart("loss", "epoch", [Series("loss", "", list(enumerate(values)))])
    assert [tick.label for tick in found.up] == labels


def test_one_point_can_be_shown_and_none_cannot():
    assert chart("loss", "epoch", [Series("loss", "", [(1, 0.5)], ["a"])]).drawn[0].dots
    with pytest.raises(ValueError, match="nothing to show"):
        chart("loss", "epoch", [])
