"""The puzzle's figure: confusion matrices side by side, under each its accuracy and verdict.

Drawn as `figures.py` draws, on a canvas of its own; callers import this file where they draw.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nutclf.evaluate import style
from nutclf.evaluate.puzzle import Exhibit

_GOOD = ("consistent",)
_LINE = 30  # characters of a panel's title


def gallery(exhibits: Sequence[Exhibit], title: str, detail: str) -> Figure:
    """A row of heat maps, rows true, columns predicted, shaded by share of the true class.

    Args:
      exhibits: of the same classes, from left to right; the first one's verdict is the truth.
      title, detail: the header's two lines.

    Raises:
      ValueError: there is none, or their classes differ.
    """
    if len({shown.diagnosis.classes for shown in exhibits}) != 1:
        raise ValueError("a row of matrices needs one or more, all of the same classes")
    classes = exhibits[0].diagnosis.classes
    side = 1.5 + 0.17 * len(classes)
    figure = Figure((1.3 + side * len(exhibits), 2.05 + side), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(exhibits), squeeze=False)[0]
    for ax, shown in zip(panels, exhibits, strict=True):
        _panel(ax, shown)
    _names(panels[0], classes)
    style.finish(figure, title, detail)
    return figure


def _panel(ax: Axes, shown: Exhibit) -> None:
    share = shown.matrix / np.maximum(shown.matrix.sum(axis=1, keepdims=True), 1)
    sns.heatmap(
        share, ax=ax, annot=shown.matrix, fmt="d", annot_kws={"fontsize": 7.5}, vmin=0, vmax=1,
        cmap=sns.blend_palette(style.SHADES, as_cmap=True), cbar=False, square=True,
        linewidths=0.8, linecolor="white", xticklabels=False, yticklabels=False,
    )  # fmt: skip
    for text, count in zip(ax.texts, shown.matrix.flat, strict=True):
        if not count:  # a hundred zeros would drown the counts
            text.set_visible(False)
    heading = textwrap.fill(shown.cause, _LINE)
    ax.set_title(heading, loc="left", fontsize=10, color=style.INK, pad=6, parse_math=False)
    good = shown.diagnosis.verdict in _GOOD
    low, high = shown.rate.interval
    below = {"transform": ax.transAxes, "ha": "left", "va": "top", "parse_math": False}
    accuracy = f"accuracy {shown.rate.share:.2f}  ({low:.2f}-{high:.2f})"
    ax.text(0, -0.12, accuracy, fontsize=10, color=style.INK, **below)
    color = style.VALID if good else style.BEST
    ax.text(0, -0.205, shown.diagnosis.verdict, fontsize=10.5, weight="bold", color=color, **below)
    ax.set_xlabel("predicted", fontsize=9, color=style.MUTED, labelpad=3, loc="left")


def _names(ax: Axes, classes: Sequence[str]) -> None:
    """At the first panel only: the classes of all are the same."""
    middle = np.arange(len(classes)) + 0.5
    ax.set_yticks(middle, classes, parse_math=False, rotation=0, fontsize=9)
    ax.tick_params(length=0, labelcolor=style.INK)
    ax.set_ylabel("true", fontsize=9, color=style.MUTED)
