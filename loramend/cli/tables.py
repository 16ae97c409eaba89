"""Reports as tables and lines for a terminal."""

import sys
from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from loramend.bank.words import NAMES
from loramend.cli.errors import printable
from loramend.contracts.evidence import Calibration, Evaluation, Rate, Variant
from loramend.contracts.report import ModuleReport, Report, Spectrum
from loramend.contracts.triage import Triage, TriageStatistic
from loramend.evaluation.words import percent
from loramend.report.answers import lines
from loramend.report.charts import setting
from loramend.report.names import shared_prefix
from loramend.report.words import far

_ANY_WIDTH = 10_000
Cell = Callable[[ModuleReport], str]


def print_report(report: Report) -> None:
    """The report on stdout: a row a module, then its summary and caveats."""
    for table in inspection_tables(report) if report.kind == "inspect" else [repair_table(report)]:
        print_whole(table)
    for trained in report.training:
        if trained.calibration is not None:
            print_whole(calibration_table(trained.calibration))
    if report.evaluation is not None:
        print_whole(evaluation_table(report.evaluation))
    if report.triage is not None and report.triage.statistics:
        print_whole(triage_table(report.triage.statistics))
    print_lines(summary_lines(report))


def print_evaluation(evaluation: Evaluation) -> None:
    """An evaluation on stdout: a row an adapter, then what the numbers say."""
    print_whole(evaluation_table(evaluation))
    print_lines([printable(sentence) for sentence in evaluation.sentences])


def inspection_tables(report: Report) -> list[Table]:
    """The spectrum of each module and, where they were given, how it lies to base and aligned model."""
    tables = [
        _table(
            report.modules,
            {
                "out x in": lambda module: f"{module.shape[0]} x {module.shape[1]}",
                "rank": lambda module: str(module.rank),
                "σ₁": lambda module: number(_top(module.before)),
                "‖ΔW‖": lambda module: number(module.before.norm),
                "stable\nrank": lambda module: number(module.before.stable_rank),
                "effective\nrank": lambda module: number(module.before.effective_rank),
            },
        )
    ]
    columns: dict[str, Cell] = {}
    if any(module.base_before for module in report.modules):
        columns["strength"] = _field("base_before", "strength_scaled")
        columns["alignment"] = _field("base_before", "alignment")
    if any(module.energy_before for module in report.modules):
        columns |= {name: _field("energy_before", name) for name in ("full", "partial", "off")}
    if columns:
        tables.append(_table(report.modules, columns))
    return tables


def repair_table(report: Report) -> Table:
    """Each module before and after, and which steps changed it by how much."""
    return _table(
        report.modules,
        {
            "rank": _ranks,
            "σ₁": lambda module: _change(module, _top),
            "‖ΔW‖": lambda module: _change(module, lambda spectrum: spectrum.norm),
            "effective\nrank": lambda module: _change(module, lambda spectrum: spectrum.effective_rank),
            "changed by": _changes,
        },
    )


def evaluation_table(evaluation: Evaluation) -> Table:
    """The shares of each adapter with their 95% intervals; columns for what was measured alone."""
    right = "refusals" if evaluation.metric == "refusal" else "right answers"
    right += "\n(95% interval)"
    columns: dict[str, Callable[[Variant], Rate | None]] = {
        right: lambda variant: variant.clean,
        "attack success": lambda variant: variant.attack,
        "flips": lambda variant: variant.flips,
    }
    shown = {
        name: share for name, share in columns.items() if any(share(each) for each in evaluation.variants)
    }
    table = plain_table("adapter", shown)
    for variant in evaluation.variants:
        table.add_row(Text(variant.name), *(_rate(share(variant)) for share in shown.values()))
    return table


def calibration_table(calibration: Calibration) -> Table:
    """The candidates that calibration tried, from the strongest repair to the mildest."""
    table = plain_table("calibration", ("right answers", "agreement", "within", "chosen"))
    for candidate in calibration.candidates:
        table.add_row(
            Text(setting(candidate)),
            _rate(candidate.clean),
            _rate(candidate.agreement),
            "yes" if candidate.within else "no",
            "yes" if candidate.chosen else "",
        )
    return table


def triage_table(statistics: list[TriageStatistic]) -> Table:
    """Each statistic of the whole adapter beside the bank's."""
    table = plain_table("beside the bank", ("value", "low", "median", "high", "not above", "z"))
    for each in statistics:
        cells = (number(value) for value in (each.value, each.low, each.median, each.high))
        quantile = "–" if each.quantile is None else f"{each.quantile:.0%}"
        z = "–" if each.z is None else f"{each.z:+.1f}"
        table.add_row(Text(NAMES[each.name]), *cells, quantile, z)
    return table


def triage_lines(found: Triage) -> list[str]:
    """Its sentences, but for the finding where a report's summary has it, and the published limits."""
    limits = [f"{limit.text} ({limit.source})" for limit in found.limits]
    told = found.sentences if found.bank is None else found.sentences[1:]
    return [printable(line) for line in (*told, *limits)]


def summary_lines(report: Report) -> list[str]:
    """What was read of models, triage, and the report's answers, caveats and facts, a sentence a line."""
    read = [
        f"Read {model.tensors} tensors of {model.name}, the {model.role} model."
        for model in report.references
    ]
    triaged = triage_lines(report.triage) if report.triage is not None else []
    indented = [" " * indent(line) + printable(line) for line in lines(report)]
    return [*map(printable, read), *triaged, *indented]


def print_whole(table: Table) -> None:
    """Print it as wide as it is: where the terminal is narrower it folds lines, and no digit is lost."""
    wide = Console(width=_ANY_WIDTH)
    width = Measurement.get(wide, wide.options, table).maximum
    Console(width=width, highlight=False).print(table)


def print_lines(lines: Sequence[str]) -> None:
    """Lines below a table, folded where they are read on a terminal."""
    console = Console(highlight=False)
    console.print()
    for line in lines:
        if sys.stdout.isatty():
            console.print(Padding(Text(line.strip()), (0, 0, 0, indent(line)), expand=False))
        else:
            console.print(Text(line), soft_wrap=True)


def indent(line: str) -> int:
    """How many spaces it begins with."""
    return len(line) - len(line.lstrip(" "))


def plain_table(first: str, columns: Iterable[str]) -> Table:
    """A table without rows: one column of names, the others of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    table.add_column(Text(first), no_wrap=True)
    for name in columns:
        table.add_column(Text(name), justify="right", no_wrap=True)
    return table


def _table(modules: Sequence[ModuleReport], columns: dict[str, Cell]) -> Table:
    """One row a module, its name without what all names begin with, which heads the column."""
    prefix = shared_prefix([module.name for module in modules])
    table = plain_table(f"{printable(prefix)}…" if prefix else "module", columns)
    for module in modules:
        name = printable(module.name.removeprefix(prefix))
        table.add_row(Text(name), *(cell(module) for cell in columns.values()))  # Text: a name is no markup
    return table


def _top(spectrum: Spectrum) -> float | None:
    return spectrum.sigma[0] if spectrum.sigma else None


def number(value: float | None) -> str:
    """Three digits; a dash for what is not known."""
    return "–" if value is None else f"{value:.3g}"


def _rate(rate: Rate | None) -> str:
    return "–" if rate is None else percent(rate)


def _field(part: str, name: str) -> Cell:
    """The number `name` of a part that a module's report may lack."""
    return lambda module: number(getattr(getattr(module, part), name, None))


def _change(module: ModuleReport, measure: Callable[[Spectrum], float | None]) -> str:
    after = measure(module.after) if module.after else None
    return f"{number(measure(module.before))} → {number(after)}"


def _ranks(module: ModuleReport) -> str:
    after = module.steps[-1].rank_after if module.steps else module.rank
    return str(module.rank) if after == module.rank else f"{module.rank} → {after}"


def _changes(module: ModuleReport) -> str:
    """`csu 12.0%` for each step that changed this module, by its relative distance."""
    applied = [f"{step.type} {far(step.distance)}" for step in module.steps if step.applied]
    return ", ".join(applied) or "left alone"
