"""What a page's plots draw, as JSON beside them: singular values, measures, shares with intervals."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from loramend.contracts.diff import AdapterDiff, ModuleDiff
from loramend.contracts.evidence import Calibration, Evaluation, Rate, VariantName
from loramend.contracts.report import BaseComparison, EnergySplit, Report, Spectrum
from loramend.evaluation.words import CONTROLS
from loramend.report.charts import setting
from loramend.report.heat import place

Plots = dict[str, Any]
_Measured = Spectrum | BaseComparison | EnergySplit

_DIGITS = 4
_SHARES: dict[str, str] = {"clean": "right answers", "attack": "attack success", "flips": "flips"}
# Measures of a module, by where the report has them: what they are called, and whether they are shares, whose
# change is a difference and not a ratio.
_SPECTRUM = {
    "norm": ("‖ΔW‖", False),
    "stable_rank": ("stable rank", False),
    "effective_rank": ("effective rank", False),
    "concentration": ("concentration σ₁/Σσ", True),
}
# The strength of ΔW, scale included: that of BA alone changes where a repair only writes its scale otherwise.
_BASE = {"strength_scaled": ("strength σ(W)/σ(ΔW)", False), "alignment": ("alignment with W", True)}
_ENERGY = {"full": ("energy, full", True), "partial": ("energy, partial", True), "off": ("energy, off", True)}

VARIANTS: dict[VariantName, str] = {
    "before": "before",
    "after": "after",
    **{name: f"control {name}: {words}" for name, words in CONTROLS.items()},
}


def report_plots(report: Report) -> Plots:
    """A report's plots."""
    modules = report.modules
    repaired = report.kind == "repair"
    measures = [
        *_measures(_SPECTRUM, [one.before for one in modules], [one.after for one in modules]),
        *_measures(_BASE, [one.base_before for one in modules], [one.base_after for one in modules]),
        *_measures(_ENERGY, [one.energy_before for one in modules], [one.energy_after for one in modules]),
    ]
    if repaired:
        measures.insert(0, _alone("moved", "how far it moved, of its norm", furthest(report).values()))
    return {
        "sides": ["before", "after"] if repaired else ["as read"],
        "modules": _modules(module.name for module in modules),
        "sigma": _sigma(
            [one.before for one in modules], [one.after for one in modules] if repaired else None
        ),
        "measures": measures,
        "calibration": [_calibration(one.calibration) for one in report.training if one.calibration],
        "behaviour": _behaviour(report.evaluation) if report.evaluation else [],
    }


def diff_plots(found: AdapterDiff) -> Plots:
    """A comparison's plots: A in the place of before, B in that of after."""
    modules = found.modules
    return {
        "sides": ["A", "B"],
        "modules": _modules(module.name for module in modules),
        "sigma": _sigma([one.a.spectrum for one in modules], [one.b.spectrum for one in modules]),
        "measures": [
            _alone("distance", "distance, of A's norm", apart(found).values()),
            _alone("turned", "1 - cosine of the two", map(_turned, modules)),
            *_measures(_SPECTRUM, [one.a.spectrum for one in modules], [one.b.spectrum for one in modules]),
            *_measures(_BASE, [one.a.base for one in modules], [one.b.base for one in modules]),
        ],
        "calibration": [],
        "behaviour": [],
    }


def apart(found: AdapterDiff) -> dict[str, float | None]:
    """How far each module of B lies from A's, of its norm."""
    return {module.name: module.distance for module in found.modules}


def furthest(report: Report) -> dict[str, float | None]:
    """The furthest that a step moved each module, of its norm."""
    return {
        module.name: max((step.distance for step in module.steps), default=0.0) for module in report.modules
    }


def as_json(plots: Plots) -> Markup:
    """JSON that can stand in a script element: no text in it ends the element, or hides from a reader."""
    text = json.dumps(plots, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 - what could be markup is escaped above


def _modules(names: Iterable[str]) -> Plots:
    """Each module as the numbers of its layer and kind, which together are its name, or else by its name."""
    layers: dict[str, int] = {}
    kinds: dict[str, int] = {}
    found: list[list[int] | str] = []
    for name in map(_visible, names):
        at = place(name)
        if at is None:
            found.append(name)
        else:
            found.append([layers.setdefault(at.layer, len(layers)), kinds.setdefault(at.kind, len(kinds))])
    return {"layers": list(layers), "kinds": list(kinds), "each": found}


def _sigma(*sides: Sequence[Spectrum | None] | None) -> list[list[list[float | None]]]:
    """A side's singular values, module by module."""
    return [
        [[_short(value) for value in spectrum.sigma] if spectrum else [] for spectrum in side]
        for side in sides
        if side is not None
    ]


def _measures(fields: dict[str, tuple[str, bool]], *sides: Sequence[_Measured | None]) -> list[Plots]:
    """The measures that at least one module has, a list of numbers a side."""
    found = []
    for field, (label, share) in fields.items():
        values = [[_short(getattr(part, field, None)) for part in side] for side in sides]
        values = [side for side in values if any(value is not None for value in side)]
        if values:
            found.append({"key": field, "label": label, "share": share, "values": values})
    return found


def _alone(key: str, label: str, values: Iterable[float | None]) -> Plots:
    return {"key": key, "label": label, "share": True, "values": [[_short(value) for value in values]]}


def _calibration(calibration: Calibration) -> Plots:
    floor = None
    if calibration.reference is not None:
        floor = _short(calibration.reference.rate - calibration.max_clean_drop / 100)
    points = []
    for order, candidate in enumerate(calibration.candidates):
        for what, rate in (("right answers", candidate.clean), ("agreement", candidate.agreement)):
            if rate is not None:
                points.append(
                    {"order": order, "setting": setting(candidate), "chosen": candidate.chosen, "what": what}
                    | _rate(rate)
                )
    return {"floor": floor, "points": points}


def _behaviour(told: Evaluation) -> list[Plots]:
    names = dict(_SHARES)
    if told.metric == "refusal":
        names["clean"] = "refusals"
    return [
        {"variant": variant.name, "words": VARIANTS[variant.name], "what": what} | _rate(rate)
        for variant in told.variants
        for field, what in names.items()
        if (rate := getattr(variant, field)) is not None
    ]


def _rate(rate: Rate) -> Plots:
    ends = {"rate": rate.rate, "low": rate.low, "high": rate.high}
    return {"count": rate.count, "n": rate.n, **{name: _short(value) for name, value in ends.items()}}


def _turned(module: ModuleDiff) -> float | None:
    """1 - cosine, to the digits that rounding of the factors leaves."""
    return None if module.cosine is None else round(1 - module.cosine, 4)


def _short(value: float | None) -> float | None:
    """The number in the digits that a plot shows; None for what cannot be drawn."""
    return float(f"{value:.{_DIGITS}g}") if value is not None and math.isfinite(value) else None


def _visible(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
