"""Small line charts as plain geometry; the template turns it into SVG that follows the theme."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 220  # of the drawing's own units: on a phone one unit is about a pixel
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 34
_TICKS = 5  # about as many along an axis
_SMALL = 0.01


@dataclass(frozen=True)
class Series:
    """Values to draw.

    Attributes:
      name: for the legend.
      look: a class of the style sheet, which gives the colour.
      points: (x, y), x rising.
      titles: one a point, shown when a person rests on it; none for a line alone.
      steps: whether a value holds until the next.
    """

    name: str
    look: str
    points: Sequence[tuple[float, float]]
    titles: Sequence[str] = ()
    steps: bool = False


@dataclass(frozen=True)
class Tick:
    """A place along an axis, in the drawing's units, and what stands there."""

    at: float
    label: str


@dataclass(frozen=True)
class Drawn:
    """A series in the drawing's units.

    Attributes:
      series: what it is.
      path: of an SVG path.
      dots: x, y and title.
    """

    series: Series
    path: str
    dots: Sequence[tuple[float, float, str]]


@dataclass(frozen=True)
class Chart:
    """A chart, ready for a template."""

    title: str
    x_label: str
    across: Sequence[Tick]
    up: Sequence[Tick]
    drawn: Sequence[Drawn]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM


def chart(title: str, x_label: str, series: Sequence[Series]) -> Chart:
    """Arranges series on common axes; x counts something (trials, epochs), so it has whole ticks.

    Raises:
      ValueError: there is no point at all.
    """
    xs = [x for each in series for x, _ in each.points]
    ys = [y for each in series for _, y in each.points]
    if not xs:
        raise ValueError(f"chart {title!r} has nothing to show")
    x_ticks, y_ticks = ticks(min(xs), max(xs), whole=True), ticks(min(ys), max(ys))
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def x_at(value: float) -> float:
        return _between(value, min(*xs, x_ticks[0]), max(*xs, x_ticks[-1]), _LEFT + 6, right - 4)

    def y_at(value: float) -> float:
        return _between(value, y_ticks[0], y_ticks[-1], bottom, _TOP)

    drawn = []
    for each in series:
        places = [(x_at(x), y_at(y)) for x, y in each.points]
        titled = zip(places, each.titles, strict=False)
        drawn.append(Drawn(each, _path(places, each.steps), [(*at, text) for at, text in titled]))
    across = [Tick(x_at(value), f"{value:g}") for value in x_ticks]
    up = [Tick(y_at(v), label) for v, label in zip(y_ticks, _labels(y_ticks), strict=True)]
    return Chart(title, x_label, across, up, drawn)


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round values that enclose `low` and `high`: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low or abs(high) or 1) / _TICKS
    power = 10 ** math.floor(math.log10(raw))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= raw * 0.999)
    step = max(1, round(step)) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Whole axes begin and end with the data: there is no trial -5.
    if whole:
        first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 12) for i in range(first, max(last, first + (not whole)) + 1)]


def _labels(values: Sequence[float]) -> list[str]:
    """All with the decimals that one of them needs; small numbers as 3.5e-4, to fit the margin."""
    if max(map(abs, values)) < _SMALL:
        return [f"{value:.1e}".replace("e-0", "e-") if value else "0" for value in values]
    decimals = max(len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in values)
    return [f"{value:.{decimals}f}" for value in values]


def _between(value: float, low: float, high: float, start: float, end: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return round(start + share * (end - start), 1)


def _path(places: Sequence[tuple[float, float]], steps: bool) -> str:
    first, *others = places or [(0, 0)]
    moves = [f"M{first[0]} {first[1]}"]
    moves += [f"H{x}V{y}" if steps else f"L{x} {y}" for x, y in others]
    return "".join(moves)
