"""Refusals regained against task accuracy lost: a curve a method, controls in grey."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.backdoors.figures import MARKERS, STYLE
from benchmarks.safety.methods import METHODS
from benchmarks.safety.tables import LOSS, Found, curve

SHOWN = 12.0  # points of task accuracy lost, at most


def draw(found: Found, path: Path) -> None:
    """Write the figure as SVG; the shaded band is the loss that the target allows."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axis = figure.subplots()
        axis.axvspan(-2, LOSS, color="tab:green", alpha=0.10, lw=0)
        for index, (name, method) in enumerate(METHODS.items()):
            means = curve(found, name)
            if means:
                axis.plot(
                    [0.0, *(mean.lost for mean in means)],
                    [0.0, *(mean.regained for mean in means)],
                    marker=MARKERS[index % len(MARKERS)],
                    markersize=4,
                    color="0.6" if method.control else f"C{index % 10}",
                    linestyle="--" if method.control else "-",
                    label=method.title,
                    zorder=1 if method.control else 2,
                )
        axis.set_xlim(-2, SHOWN)
        axis.set_xlabel("task accuracy lost, points")
        axis.set_ylabel("refusals regained, points")
        figure.legend(loc="outside right upper", frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")
