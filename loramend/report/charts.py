"""The report's charts as SVG path data and words for those who cannot see them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from loramend.contracts.evidence import Calibration, Candidate, LossPoint, Rate
from loramend.contracts.report import EnergySplit, ModuleReport

# A chart's size in its own units; of more values than bars fit, evenly spaced ones are drawn.
_WIDTH, _HEIGHT = 160.0, 40.0
_MAX_BAR = 16.0
_MAX_BARS = 64
_MAX_POINTS = 160
_LEAST_WIDTH = 0.05
STILL = 24
"""Modules whose singular values are drawn where no script runs."""


class Bars(NamedTuple):
    """SVG path data of the bars before and after, and what they show in words."""

    before: str
    after: str
    words: str


class Curve(NamedTuple):
    """SVG path data of a line, and what it shows in words."""

    line: str
    words: str


class Intervals(NamedTuple):
    """SVG path data of one interval a candidate with its middle marked, those not chosen and the chosen one,
    the height of the line they must stay above (None without one), and what it shows in words."""

    others: str
    chosen: str
    floor: float | None
    words: str


def spectrum_bars(module: ModuleReport) -> Bars:
    """Singular values before, as wide bars, and after, as narrow bars inside them, on one linear scale."""
    return paired_bars(module.before.sigma, module.after.sigma if module.after else None, ("before", "after"))


def paired_bars(first: Sequence[float], second: Sequence[float] | None, names: tuple[str, str]) -> Bars:
    """The same of any two lists of singular values, by what they are called."""
    before, after = first, second or []
    top = max((value for value in (*before, *after) if math.isfinite(value)), default=0.0)
    shown = _evenly(max(len(before), len(after)), _MAX_BARS)
    words = f"Singular values {names[0]}: {_range(before)}"
    if second is not None:
        words += f"; {names[1]}: {_range(after)}"
    return Bars(_bars(before, shown, top, 0.88), _bars(after, shown, top, 0.36), words)


def split_lines(splits: Sequence[EnergySplit]) -> list[tuple[str, str]]:
    """Splits as bars of 100 units, 8 below one another: by share, SVG path data of its parts of all bars."""
    lines = dict.fromkeys(("full", "partial", "off"), "")
    for row, split in enumerate(splits):
        start = 0.0
        for name in lines:
            width = 100 * min(max(getattr(split, name), 0.0), 1.0)
            if width >= _LEAST_WIDTH:
                lines[name] += f"M{start:.3g} {8 * row + 4}h{width:.3g}"
            start += width
    return [(name, line) for name, line in lines.items() if line]


def loss_curve(points: Sequence[LossPoint]) -> Curve:
    """The loss over the steps, from zero at the bottom."""
    finite = [point for point in points if math.isfinite(point.loss)]
    if not finite:
        return Curve("", "No loss was recorded")
    first, last = finite[0], finite[-1]
    low = min(0.0, min(point.loss for point in finite))
    span = (max(point.loss for point in finite) - low) or 1.0
    steps = (last.step - first.step) or 1
    places = [
        f"{_WIDTH * (finite[i].step - first.step) / steps:.1f} "
        f"{_HEIGHT * (1 - (finite[i].loss - low) / span):.1f}"
        for i in _evenly(len(finite), _MAX_POINTS)
    ]
    words = f"Loss from {first.loss:.4g} at step {first.step} to {last.loss:.4g} at step {last.step}"
    return Curve(f"M{'L'.join(places)}", words)


def calibration_intervals(calibration: Calibration) -> Intervals:
    """Each candidate's share, from the strongest repair at the left to the mildest, with its interval."""
    judged = [(candidate, judged_by(candidate)) for candidate in calibration.candidates]
    rates = [rate for _, rate in judged if rate is not None]
    floor = None
    if calibration.reference is not None and all(candidate.clean for candidate, _ in judged):
        floor = calibration.reference.rate - calibration.max_clean_drop / 100
    low = min((*(rate.low for rate in rates), *([] if floor is None else [floor])), default=0.0)
    high = max((*(rate.high for rate in rates), *([] if floor is None else [floor])), default=1.0)
    span = (high - low) or 1.0

    def height(value: float) -> float:
        return _HEIGHT * (1 - (value - low) / span)

    paths = {False: "", True: ""}
    slot = _WIDTH / max(len(judged), 1)
    for place, (candidate, rate) in enumerate(judged):
        if rate is not None:
            x, top, middle = (place + 0.5) * slot, height(rate.high), height(rate.rate)
            paths[candidate.chosen] += (
                f"M{x - 0.5:.1f} {top:.1f}h1V{height(rate.low):.1f}h-1z"
                f"M{x - 2.5:.1f} {middle - 1.25:.1f}h5v2.5h-5z"
            )
    words = "; ".join(
        f"{setting(candidate)}: {'–' if rate is None else f'{rate.rate:.1%}'}"
        + (", chosen" if candidate.chosen else "")
        for candidate, rate in judged
    )
    return Intervals(paths[False], paths[True], None if floor is None else round(height(floor), 1), words)


def judged_by(candidate: Candidate) -> Rate | None:
    """Accuracy where labels allowed it, else agreement with the given adapter."""
    return candidate.clean or candidate.agreement


def setting(candidate: Candidate) -> str:
    """What calibration set, as `ratio=0.3, layers=3`; `none` where it set nothing."""
    return ", ".join(f"{name}={value:.4g}" for name, value in candidate.values.items()) or "none"


def _evenly(count: int, most: int) -> list[int]:
    """At most so many indices below `count`, the first and last among them."""
    return list(range(count)) if count <= most else [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _range(sigma: Sequence[float]) -> str:
    return f"{len(sigma)}, from {sigma[0]:.4g} to {sigma[-1]:.4g}" if sigma else "none"


def _bars(sigma: Sequence[float], shown: Sequence[int], top: float, fill: float) -> str:
    """One path for all bars; `fill` is a bar's share of its slot's width."""
    slot = min(_MAX_BAR, _WIDTH / max(len(shown), 1))
    path = []
    for place, index in enumerate(shown):
        value = sigma[index] if index < len(sigma) else 0.0
        if top > 0 and math.isfinite(value) and value > 0:
            left, height = (place + (1 - fill) / 2) * slot, _HEIGHT * value / top
            path.append(f"M{left:.1f} {_HEIGHT:g}v{-height:.1f}h{slot * fill:.1f}v{height:.1f}z")
    return "".join(path)
