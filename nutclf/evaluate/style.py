"""The one look of all figures: colours, quiet axes, and a header over the panels.

Works on figures handed in and imports no Matplotlib, so that only `figures.py` pays for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, NOTHING = "#22303c", "#6b7a88", "#dfe5ea", "#b6c1ca"
TRAIN, VALID, BEST = "#8a9bab", "#14608c", "#c8553d"
SHADES = ("#f6f9fb", "#a9cbe0", "#3d86b3", "#0d3f5f")
DASHED = {"linewidth": 1, "linestyle": (0, (4, 3))}
HEADER = 44
"""Height of the band kept free above the panels, in points."""


def finish(figure: Figure, title: str, detail: str) -> None:
    """Arranges the panels below a header: a bold line and a quiet one, 10 points off the edges.

    Call it last: the layout is measured at each draw, and seaborn draws once by itself.
    """
    width, height = figure.get_size_inches() * 72
    band = (0, 0, 1, 1 - HEADER / height)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1, wspace=0.03, rect=band)
    style = {"ha": "left", "va": "top", "parse_math": False}
    x, y = 10 / width, 1 - 10 / height
    figure.text(x, y, title, size=13, weight="bold", color=INK, **style)
    figure.text(x, y - 20 / height, detail, size=10, color=MUTED, **style)


def quiet_axes(ax: Axes) -> None:
    """Horizontal rules and a base line; no box, no tick marks."""
    ax.grid(axis="y", color=RULE, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(MUTED)
    ax.tick_params(length=0, labelcolor=INK, labelsize=9.5)
    ax.xaxis.label.set_color(INK)
    ax.yaxis.label.set_color(INK)
