"""The charts of the report as inline SVG that follows the page's colours, light or dark."""

import io
import re
from collections.abc import Mapping

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nutclf.evaluate.figures import BEST, DASHED, INK, MUTED, RULE, TRAIN, VALID, quiet_axes
from nutclf.track.studies import StudyRecord

_LOOKS = {
    "best": ("best so far", BEST), "trial": ("trial", VALID), "train": ("training", TRAIN),
    "valid": ("validation", VALID), "kept": ("kept", BEST), "rate": ("learning rate", VALID),
    "probe": ("best probe", MUTED),
}  # fmt: skip
_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", TRAIN: "grey", VALID: "blue", BEST: "warm"}
# A <style> would apply to the whole page, and ids would occur once in each chart.
_DROPPED = r'<style.*?</style>|(?<=<g) id="(?!tip )[^"]*"| clip-path="[^"]*"| font-family: [^;]*;'


def history_chart(record: StudyRecord) -> dict:
    """The objective of each COMPLETE trial in the order of the search, and the best so far."""
    values = pd.Series({t.number: t.value for t in record.trials if t.value is not None})
    best = values.cummax() if record.objective.direction == "maximize" else values.cummin()
    best.loc[record.trials[-1].number] = best.iloc[-1]
    lines = {"probe": record.best_probe.value} if record.best_probe else {}
    return _chart(record.objective.metric, "trial", **lines, best=best, trial=values)


def cost_chart(record: StudyRecord) -> dict:
    """The accuracy of each COMPLETE trial against the seconds that it took."""
    done = [trial for trial in record.trials if trial.accuracy]
    shares = pd.Series([t.accuracy.share for t in done], [round(t.seconds) for t in done])
    lines = {"probe": record.best_probe.accuracy.share} if record.best_probe else {}
    return _chart("accuracy against cost", "seconds", **lines, trial=shares)


def training_charts(
    curves: pd.DataFrame, best_epoch: float | None, probe: Mapping[str, float]
) -> list[dict]:
    """Loss, accuracy and learning rate by epoch (the index of `curves`), as far as recorded.

    `probe` has the metrics of the best probe.
    """
    charts = []
    for what in ("loss", "accuracy"):
        lines = {s: curves[f"{s}_{what}"] for s in ("train", "valid") if f"{s}_{what}" in curves}
        if "valid" in lines and best_epoch in curves.index:
            lines["kept"] = lines["valid"].loc[[best_epoch]]
        if lines and (measured := f"best_valid_{what}") in probe:
            lines["probe"] = probe[measured]
        if lines:
            charts.append(_chart(what, "epoch", **lines))
    if "learning_rate" in curves:
        charts.append(_chart("learning rate", "epoch", rate=curves["learning_rate"]))
    return charts


def _chart(title: str, x_label: str, **lines: pd.Series | float) -> dict:
    """A chart's title, legend as (name, CSS class) pairs, and SVG.

    `lines` by their look; a number is a level.
    """
    ax = Figure((5, 3), layout="constrained").subplots()  # on a phone a point is about a pixel
    quiet_axes(ax)
    ax.spines["bottom"].set_visible(False)
    ax.set_xlabel(x_label, loc="right", color=MUTED, fontsize=11)
    ax.tick_params(labelsize=11, labelcolor=MUTED)
    ax.ticklabel_format(axis="y", style="plain", useOffset=False)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    for look, values in lines.items():
        color = _LOOKS[look][1]
        if look == "probe":
            ax.axhline(values, color=color, **DASHED)
        elif look in ("trial", "kept"):
            for x, y in values.dropna().items():
                tip = f"tip {x_label} {x}: {y:.4f}"
                ax.plot(x, y, "o", color=color, markersize=7, zorder=3, gid=tip)
        else:
            steps = "steps-post" if look == "best" else "default"
            ax.plot(values.dropna(), color=color, linewidth=2, drawstyle=steps)
    ax.yaxis.set_major_locator(round_ticks := MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.margins(y=0)
    ax.set_ylim(round_ticks.tick_values(*ax.get_ylim())[[0, -1]])
    return {"title": title, "legend": [(_LOOKS[look][0], look) for look in lines], "svg": _svg(ax)}


def _svg(ax: Axes) -> str:
    """The figure as an element: palette colours become CSS variables, a `tip` id a tooltip."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nutclf"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        ax.figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = re.sub(r"^.*?<svg.*?(?= viewBox)", "<svg", file.getvalue(), flags=re.DOTALL)
    svg = re.sub(r'<g id="tip (.*?)">', r"<g><title>\1</title>", re.sub(_DROPPED, "", svg))
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    return re.sub(r"\s*\n\s*", " ", svg)
