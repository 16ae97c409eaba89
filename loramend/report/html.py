"""The report as one HTML file: no script, nothing fetched, every string of the adapter's escaped."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from loramend.contracts.report import EnergySplit, ModuleReport, Report
from loramend.contracts.steps import Step
from loramend.report.words import NOT_MEASURED

_ASKED = {
    "poisoned_adapter": "Threat poisoned_adapter: the adapter is not trusted, the base model is.",
    "poisoned_base": "Threat poisoned_base: the base model is not trusted, the adapter is but may be weak.",
    None: "No threat was named: this measures and changes nothing.",
}
_VERDICTS = {
    "indistinguishable_by_weights": "not distinguishable from its controls by weights",
    "distinct_by_weights": "distinct from its controls by weights",
    "no_change": "no change",
}
# A chart's size in its own units; of more values than bars fit, evenly spaced ones are drawn.
_WIDTH, _HEIGHT = 160.0, 40.0
_MAX_BAR = 16.0
_MAX_BARS = 64


class _Chart(NamedTuple):
    """SVG path data of the bars before and after, and what they show in words."""

    before: str
    after: str
    words: str


class _Segment(NamedTuple):
    """One part of a bar of shares: where it starts and how wide it is, in percent of the bar."""

    name: str
    x: float
    width: float


def report_html(report: Report) -> str:
    """The whole page. It needs no other file and holds the numbers of the report's tables in short; the same
    report gives the same text."""
    sure = {comparison.sentence for comparison in report.placebo} | {NOT_MEASURED}
    return _environment().get_template("report.html.j2").render(
        report=report,
        asked=_ASKED[report.threat],
        told=[sentence for sentence in report.summary if sentence not in sure],
        sure=[sentence for sentence in report.summary if sentence in sure],
        changed=sum(any(step.applied for step in module.steps) for module in report.modules),
        verdicts=_VERDICTS,
        repaired=report.kind == "repair",
        on_base=[module for module in report.modules if module.base_before],
        split=[module for module in report.modules if module.energy_before],
    )  # fmt: skip


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("loramend.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "share": _share,
        "bytes": _bytes,
        "dotted": _dotted,
        "parameters": _parameters,
        "chart": _chart,
        "segments": _segments,
        "changes": _changes,
    }
    return environment


def _visible(value: object) -> object:
    """Text without the characters that hide or reorder what a reader sees, such as bidirectional marks."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value)
    return value


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _bytes(size: int) -> str:
    if size < 1024:
        return f"{size} B"
    unit = min(int(math.log2(size)) // 10, 4)
    return f"{size / 1024**unit:.1f} {'KMGT'[unit - 1]}iB"


def _dotted(name: str) -> Markup:
    """A name that may break after its dots, slashes and underscores, and there only."""
    return Markup("<wbr>").join(re.split(r"(?<=[./_])(?=.)", str(_visible(name))))


def _parameters(step: Step) -> str:
    values = step.model_dump(mode="json", exclude={"type"}, exclude_none=True)
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _changes(module: ModuleReport) -> list[str]:
    """What each step did to this module, in a few words."""
    return [
        f"{step.type}: moved by {_share(step.distance)}"
        + (f", lost {_share(step.truncation_loss)} to truncation" if step.truncation_loss else "")
        if step.applied
        else f"{step.type}: left alone{f' ({step.reason})' if step.reason else ''}"
        for step in module.steps
    ]


def _chart(module: ModuleReport) -> _Chart:
    """Singular values before, as wide bars, and after, as narrow bars inside them, on one linear scale."""
    before, after = module.before.sigma, module.after.sigma if module.after else []
    top = max((value for value in (*before, *after) if math.isfinite(value)), default=0.0)
    count = max(len(before), len(after))
    shown = [round(i * (count - 1) / (_MAX_BARS - 1)) for i in range(_MAX_BARS)]
    shown = shown if count > _MAX_BARS else list(range(count))
    words = f"Singular values before: {_range(before)}"
    if module.after:
        words += f"; after: {_range(after)}"
    return _Chart(_bars(before, shown, top, 0.88), _bars(after, shown, top, 0.36), words)


def _range(sigma: Sequence[float]) -> str:
    return f"{len(sigma)}, from {_number(sigma[0])} to {_number(sigma[-1])}" if sigma else "none"


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


def _segments(split: EnergySplit) -> list[_Segment]:
    """The split as adjoining parts of one bar."""
    found, start = [], 0.0
    for name in ("full", "partial", "off"):
        width = 100 * min(max(getattr(split, name), 0.0), 1.0)
        found.append(_Segment(name, round(start, 2), round(width, 2)))
        start += width
    return found
