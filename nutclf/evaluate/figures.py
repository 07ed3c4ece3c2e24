"""The figures of a run: confusion matrix, learning curves, reliability.

Each function returns a `Figure` on its own Agg canvas. pyplot's global state is not touched, so
figures drawn in threads and in long studies neither mix nor pile up. Matplotlib takes a second to
import: callers import this file where they draw, not at their top.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, MaxNLocator, PercentFormatter

from nutclf.evaluate.calibration import expected_calibration_error, reliability_table
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.metrics import as_counts

INK, MUTED, RULE, NOTHING = "#22303c", "#6b7a88", "#dfe5ea", "#b6c1ca"
TRAIN, VALID, BEST = "#8a9bab", "#14608c", "#c8553d"
SHADES = ("#f6f9fb", "#a9cbe0", "#3d86b3", "#0d3f5f")
COUNTED, NAMED = 30, 60  # classes up to which a matrix has its counts, and its names, to be read
DASHED = {"linewidth": 1, "linestyle": (0, (4, 3))}


def blank(width: float, height: float) -> Figure:
    """An empty white figure of `width` by `height` inches."""
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def finish(figure: Figure, title: str, detail: str) -> None:
    """Arranges the panels below a header of two lines, 44 points high. Call it last."""
    width, height = figure.get_size_inches() * 72
    band = (0, 0, 1, 1 - 44 / height)
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


def confusion_figure(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Heat map of counts [C, C]: rows true, columns predicted, shaded by share of the true class.

    A class without images is a row of pale zeros. The accuracy is printed below the title. Of many
    classes it says less: no counts above `COUNTED`, no names above `NAMED`.
    """
    counts, n = as_counts(matrix, len(classes)), len(classes)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = blank(3.6 + 0.58 * min(n, COUNTED), 2.7 + 0.5 * min(n, COUNTED))
    ax = figure.subplots()
    # A bar outside the grid, or the later constrained layout would keep the bar's slot empty.
    bar = {"use_gridspec": False, "shrink": 0.6, "pad": 0.03, "aspect": 24}
    # Seaborn's own tick labels would be parsed as mathematics and measured once more, hence none.
    sns.heatmap(
        share, ax=ax, annot=counts if n <= COUNTED else None, fmt="d",
        annot_kws={"fontsize": 10.5}, vmin=0, vmax=1,
        cmap=sns.blend_palette(SHADES, as_cmap=True), cbar_kws=bar,
        linewidths=1.5 if n <= NAMED else 0, linecolor="white",
        xticklabels=False, yticklabels=False,
    )  # fmt: skip
    for text, count in zip(ax.texts, counts.flat, strict=False):  # no text where there are many
        text.set_fontweight("bold" if count else "normal")
        text.set_color(text.get_color() if count else NOTHING)
    if n <= NAMED:
        middle, look = np.arange(n) + 0.5, {"parse_math": False, "fontsize": 10 * min(1, 40 / n)}
        slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(middle, classes, **look, **slant)
        ax.set_yticks(middle, classes, **look)
    ax.set_xlabel("predicted", labelpad=8, color=INK)
    ax.set_ylabel("true", labelpad=8, color=INK)
    ax.tick_params(length=0, labelcolor=INK)
    scale = figure.axes[-1]
    scale.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    scale.tick_params(length=0, labelcolor=MUTED, labelsize=9)
    scale.set_ylabel("share of the true class", color=MUTED, fontsize=9)
    finish(figure, title, f"accuracy {Rate(int(np.trace(counts)), int(counts.sum()))}")
    return figure


def learning_curves(history: pd.DataFrame, best_epoch: int) -> Figure:
    """Loss, accuracy and learning rate by epoch in three panels, with the kept epoch marked.

    `history` has one row per epoch: `epoch`, `train_loss`, `valid_loss`, `train_accuracy`,
    `valid_accuracy`, `learning_rate`. The rate's axis is logarithmic where it falls tenfold.
    """
    history = history.set_index("epoch").sort_index()
    best, rates = history.loc[best_epoch], history["learning_rate"]
    line = {"linewidth": 1.9, "marker": "o", "markersize": 3.2}
    figure = blank(12.4, 4.0)
    losses, accuracies, third = panels = figure.subplots(1, 3)
    for ax, name in zip(panels, ("loss", "accuracy", "learning rate"), strict=True):
        quiet_axes(ax)
        ax.set_title(name, loc="left", fontsize=10.5, color=INK)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        ax.axvline(best_epoch, color=BEST, zorder=1, **DASHED)
    for ax, name in ((losses, "loss"), (accuracies, "accuracy")):
        ax.plot(history[f"train_{name}"], color=TRAIN, label="training", **line)
        ax.plot(history[f"valid_{name}"], color=VALID, label="validation", **line)
        ax.plot(best_epoch, best[f"valid_{name}"], "o", color=BEST, label="kept", zorder=3)
    third.plot(rates, color=VALID, **line)
    if rates.min() > 0 and rates.max() >= 10 * rates.min():
        third.set_yscale("log")
        third.minorticks_off()
    else:
        third.set_ylim(0, 1.1 * rates.max() or 1)
    losses.set_ylim(bottom=0)
    accuracies.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    third.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    entries = losses.get_legend_handles_labels()
    figure.legend(*entries, loc="upper right", ncols=3, frameon=False, labelcolor=INK)
    kept = f"validation loss {best['valid_loss']:.3f}, accuracy {best['valid_accuracy']:.3f}"
    finish(figure, "Learning curves", f"kept: epoch {best_epoch}, {kept}")
    return figure


def reliability_figure(y_prob: np.ndarray, y_true: np.ndarray, title: str) -> Figure:
    """Accuracy against confidence with 95% intervals, above the number of images in each bin.

    The calibration error of probabilities [N, C] and class ids [N] is printed below the title.
    """
    bins = 10  # wider than those of the metric: few images
    table = reliability_table(y_prob, y_true, bins)
    filled = table[table["n"] > 0]
    ends = [Rate(int(right), int(n)).interval for right, n in filled[["right", "n"]].to_numpy()]
    figure = blank(5.6, 6.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    upper.axline((0, 0), (1, 1), color=MUTED, label="ideal", **DASHED)
    upper.vlines(filled["confidence"], *np.transpose(ends), VALID, alpha=0.35, linewidth=3)
    upper.plot(filled["confidence"], filled["accuracy"], "o-", color=VALID, clip_on=False)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.legend(loc="upper left", frameon=False, labelcolor=INK)
    lower.bar(table["low"], table["n"], 1 / bins, align="edge", color=VALID, ec="white")
    lower.set(xlabel="confidence (largest probability)", ylabel="images")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    quiet_axes(upper)
    quiet_axes(lower)
    error = expected_calibration_error(y_prob, y_true, bins)
    finish(figure, title, f"expected calibration error {error:.3f} on {len(y_true)} images")
    return figure
