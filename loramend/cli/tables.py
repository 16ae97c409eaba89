"""Reports as tables and lines for a terminal."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loramend.cli.errors import printable
from loramend.contracts.report import ModuleReport, Report, Spectrum

_PIPED_WIDTH = 200  # rich assumes 80 columns where there is no terminal, and would cut names


def print_report(report: Report) -> None:
    """The report on stdout: a row a module, then its summary and caveats."""
    piped = not sys.stdout.isatty()
    console = Console(width=_PIPED_WIDTH if piped else None, highlight=False)
    console.print(inspection_table(report) if report.kind == "inspect" else repair_table(report))
    for line in summary_lines(report):
        console.print(Text(line), soft_wrap=piped)


def inspection_table(report: Report) -> Table:
    """One row a module: its spectrum, and how it compares with base and aligned model, where given."""
    with_base = any(module.base_before for module in report.modules)
    with_energy = any(module.energy_before for module in report.modules)
    table = _table("module", "out x in", "rank", "σ₁", "‖ΔW‖", "stable rank", "effective rank")
    if with_base:
        _columns(table, "strength", "alignment")
    if with_energy:
        _columns(table, "full", "partial", "off")
    for module in report.modules:
        spectrum, base, energy = module.before, module.base_before, module.energy_before
        values = [_top(spectrum), spectrum.norm, spectrum.stable_rank, spectrum.effective_rank]
        if with_base:
            values += [base.strength, base.alignment] if base else [None] * 2
        if with_energy:
            values += [energy.full, energy.partial, energy.off] if energy else [None] * 3
        shape = f"{module.shape[0]} x {module.shape[1]}"
        table.add_row(_name(module), shape, str(module.rank), *map(_number, values))
    return table


def repair_table(report: Report) -> Table:
    """One row a module: before and after, and which steps changed it."""
    table = _table("module", "rank", "σ₁", "‖ΔW‖", "effective rank", "changed by")
    for module in report.modules:
        before, after = module.before, module.after
        ranks = [step.rank_after for step in module.steps] or [module.rank]
        table.add_row(
            _name(module),
            str(module.rank) if ranks[-1] == module.rank else f"{module.rank} → {ranks[-1]}",
            _change(_top(before), _top(after) if after else None),
            _change(before.norm, after.norm if after else None),
            _change(before.effective_rank, after.effective_rank if after else None),
            _changes(module),
        )
    return table


def summary_lines(report: Report) -> list[str]:
    """The report's sentences and caveats, and what was read of models, each on its line."""
    read = [
        f"Read {model.tensors} tensors of {model.name}, the {model.role} model."
        for model in report.references
    ]
    return [printable(line) for line in (*read, *report.summary, *report.caveats)]


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    _columns(table, *others)
    return table


def _columns(table: Table, *names: str) -> None:
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)


def _name(module: ModuleReport) -> Text:
    return Text(printable(module.name))  # Text: brackets in a name are no markup


def _top(spectrum: Spectrum) -> float | None:
    return spectrum.sigma[0] if spectrum.sigma else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _change(before: float | None, after: float | None) -> str:
    return f"{_number(before)} → {_number(after)}"


def _changes(module: ModuleReport) -> str:
    """`csu 12%` for each step that changed this module, by its relative distance."""
    applied = [f"{step.type} {step.distance:.1%}" for step in module.steps if step.applied]
    return ", ".join(applied) or "left alone"
