"""The report as one HTML file: its own scripts alone, nothing fetched, what an adapter says escaped."""

import math
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from loramend.bank.words import NAMES, OF_MODULE
from loramend.contracts.data import Metric
from loramend.contracts.evidence import Rate
from loramend.contracts.report import ModuleReport, Report
from loramend.contracts.steps import Step
from loramend.evaluation.words import counted, percent
from loramend.report.answers import answers, facts
from loramend.report.charts import (
    STILL,
    calibration_intervals,
    loss_curve,
    setting,
    spectrum_bars,
    split_lines,
)
from loramend.report.heat import HeatMap, heat_map
from loramend.report.inline import SCRIPTS, script_policy
from loramend.report.names import shared_prefix
from loramend.report.plots import VARIANTS, as_json, furthest, report_plots
from loramend.report.words import BY_WEIGHTS, far, moved

_METRICS: dict[Metric, str] = {
    "label": "Right answers: clean accuracy",
    "exact_match": "Right answers: clean accuracy by exact match",
    "substring": "Right answers: those that hold the expected text",
    "refusal": "Refusals: by a rule over their opening words",
}


def report_html(report: Report) -> str:
    """The whole page. It needs no other file and holds the numbers of the report's tables in short; the same
    report gives the same text."""
    repaired = report.kind == "repair"
    size = furthest(report) if repaired else {module.name: module.before.norm for module in report.modules}
    shown = sorted(report.modules, key=lambda module: -(size[module.name] or 0.0))[:STILL]
    heat = heat_map(size)
    names = [module.name for module in report.modules]
    shared = shared_prefix(names)
    return page_environment().get_template("report.html.j2").render(
        report=report,
        answers=answers(report),
        facts=facts(report),
        contents=[(id, title) for id, title, there in _contents(report, heat) if there],
        verdicts=BY_WEIGHTS,
        variants=VARIANTS,
        metrics=_METRICS,
        repaired=repaired,
        heat=heat,
        shared=shared,
        brief={name: name.removeprefix(shared) for name in names},
        charts=[(module.name, spectrum_bars(module)) for module in shown],
        sides=["before", "after"] if repaired else ["as read"],
        plots=as_json(report_plots(report)),
        policy=script_policy(),
        on_base=[module for module in report.modules if module.base_before],
        split=[module for module in report.modules if module.energy_before],
    )  # fmt: skip


def _contents(report: Report, heat: HeatMap | None) -> list[tuple[str, str, bool]]:
    """The page's parts: their id and title, and whether they are there."""
    return [
        ("full", "In full", True),
        ("behaviour", "Behaviour", report.evaluation is not None),
        ("training-1", "Training", bool(report.training)),
        ("placebo", "Placebo comparison", bool(report.placebo)),
        ("triage", "Triage", report.triage is not None),
        ("map", "Map of the modules", heat is not None),
        ("spectra-title", "Singular values", bool(report.modules)),
        ("read", "What was read", True),
        ("modules", "Modules in numbers", True),
        ("provenance", "Provenance", True),
    ]


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
        "counted": counted,
        "far": lambda value: "–" if value is None else far(value),
        "moved": lambda value: "–" if value is None else moved(value),
        "bytes": _bytes,
        "dotted": _dotted,
        "parameters": _parameters,
        "split_lines": split_lines,
        "loss_curve": loss_curve,
        "calibration_intervals": calibration_intervals,
        "rate": _rate,
        "setting": setting,
        "changes": _changes,
        "statistic": NAMES.__getitem__,
        "of_module": OF_MODULE.__getitem__,
    }
    environment.globals["script"] = lambda name: Markup(SCRIPTS[name])  # noqa: S704 - our own files
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
        f"{step.type}: moved by {far(step.distance)}"
        + (f", lost {_share(step.truncation_loss)} to truncation" if step.truncation_loss else "")
        if step.applied
        else f"{step.type}: left alone{f' ({step.reason})' if step.reason else ''}"
        for step in module.steps
    ]
