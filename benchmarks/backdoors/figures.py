"""One figure a model and threat: clean accuracy against attack success, a panel for each task and attack."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.backdoors.methods import METHODS
from benchmarks.backdoors.tables import ASR_ABOVE, ASR_MOST, CLEAN_DROP, Column, Results
from loramend.contracts.step_base import Threat

ACROSS = 3  # panels a row
MARKERS = "osD^vP*Xh<>p"
STYLE: Any = {
    "svg.hashsalt": "loramend",  # the same figure gives the same bytes
    "svg.fonttype": "none",  # text stays text
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(found: Results, threat: Threat, path: Path) -> None:
    """Write the figure as SVG: a mark a method, means over seeds; the shaded corner is the
    target. Ablations are left to the table."""
    names = [name for name in METHODS if name in found and not METHODS[name].ablation]
    columns = sorted({column for name in names for column in found[name]}, key=lambda c: c.title)
    down = -(-len(columns) // ACROSS)
    across = min(ACROSS, len(columns))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.0 * across, 2.6 * down + 1.1), layout="constrained")
        axes: list[Axes] = list(figure.subplots(down, across, squeeze=False).flat)
        for axis in axes[len(columns) :]:
            axis.set_axis_off()
        for axis, column in zip(axes, columns, strict=False):
            _panel(axis, found, names, column, threat)
        handles = {mark.get_label(): mark for axis in axes for mark in axis.collections}
        shown = [name for name in names if name in handles]
        figure.legend(
            [handles[name] for name in shown],
            [METHODS[name].title for name in shown],
            loc="outside lower center",
            ncols=min(across, 3),
            frameon=False,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")


def _panel(axis: Axes, found: Results, names: list[str], column: Column, threat: Threat) -> None:
    given, yardstick = found.get("given", {}).get(column), found.get("yardstick", {}).get(column)
    if given is not None and yardstick is not None:
        left = given.mean[0] - (CLEAN_DROP if threat == "poisoned_adapter" else 0.0)
        high = yardstick.mean[1] + ASR_ABOVE if threat == "poisoned_adapter" else ASR_MOST
        axis.add_patch(Rectangle((left, 0), 100 - left, high, color="tab:green", alpha=0.12, lw=0, zorder=0))
    for index, name in enumerate(names):
        entry = found[name].get(column)
        if entry is not None:
            ca, asr = entry.mean
            marker, colour = MARKERS[index % len(MARKERS)], f"C{index % 10}"
            axis.scatter(ca, asr, s=28, marker=marker, color=colour, label=name, clip_on=False, zorder=2)
    axis.set_title(column.title)
    axis.set_ylim(0, 100)
    shown = [entry.mean[0] for name in names if (entry := found[name].get(column)) is not None]
    axis.set_xlim(min(shown) - 2, min(100.0, max(shown) + 2))
    axis.set_xlabel("clean accuracy, %")
    axis.set_ylabel("attack success, %")
