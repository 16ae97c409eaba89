"""The report as one HTML file: no script, nothing fetched, every string of the adapter's escaped."""

import math
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from loramend.bank.words import NAMES, OF_MODULE
from loramend.contracts.data import Metric
from loramend.contracts.evidence import Rate, VariantName
from loramend.contracts.report import ModuleReport, Report
from loramend.contracts.steps import Step
from loramend.evaluation.words import CONTROLS, percent
from loramend.report.charts import calibration_intervals, loss_curve, segments, setting, spectrum_bars
from loramend.report.words import how_sure

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

_VARIANTS: dict[VariantName, str] = {
    "before": "before",
    "after": "after",
    **{name: f"control {name}: {words}" for name, words in CONTROLS.items()},
}
_METRICS: dict[Metric, str] = {
    "label": "Right answers: clean accuracy",
    "exact_match": "Right answers: clean accuracy by exact match",
    "substring": "Right answers: those that hold the expected text",
    "refusal": "Refusals: by a rule over their opening words",
}


def report_html(report: Report) -> str:
    """The whole page. It needs no other file and holds the numbers of the report's tables in short; the same
    report gives the same text."""
    sure = how_sure(report.placebo, report.evaluation)
    return page_environment().get_template("report.html.j2").render(
        report=report,
        asked=_ASKED[report.threat],
        told=[sentence for sentence in report.summary if sentence not in sure],
        sure=[sentence for sentence in report.summary if sentence in sure],
        changed=sum(any(step.applied for step in module.steps) for module in report.modules),
        verdicts=_VERDICTS,
        variants=_VARIANTS,
        metrics=_METRICS,
        repaired=report.kind == "repair",
        on_base=[module for module in report.modules if module.base_before],
        split=[module for module in report.modules if module.energy_before],
    )  # fmt: skip


def page_environment() -> Environment:
    """Templates and filters of the pages: everything is escaped, and nothing undefined is passed over."""
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
        "chart": spectrum_bars,
        "segments": segments,
        "loss_curve": loss_curve,
        "calibration_intervals": calibration_intervals,
        "rate": _rate,
        "setting": setting,
        "changes": _changes,
        "statistic": NAMES.__getitem__,
        "of_module": OF_MODULE.__getitem__,
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


def _rate(rate: Rate | None) -> str:
    return "–" if rate is None else percent(rate)


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
