"""A comparison of two adapters as tables and lines for a terminal."""

from collections.abc import Callable

from rich.table import Table
from rich.text import Text

from loramend.cli.errors import printable
from loramend.cli.tables import number, plain_table, print_lines, print_whole
from loramend.contracts.diff import AdapterDiff, ModuleDiff, Side
from loramend.report.names import shared_prefix
from loramend.report.words import far

Cell = Callable[[ModuleDiff], str]
_LISTED = 5


def print_diff(found: AdapterDiff) -> None:
    """A row a module, then what only one of them has, and the summary."""
    if found.modules:
        print_whole(diff_table(found))
    print_lines([*_lists(found), *(printable(sentence) for sentence in found.summary)])


def diff_table(found: AdapterDiff) -> Table:
    """Both numbers where they are of one update, one where they are of the pair."""
    columns: dict[str, Cell] = {
        "rank\nA | B": lambda module: _both(module, lambda side: side.rank),
        "σ₁\nA | B": lambda module: _both(module, lambda side: max(side.spectrum.sigma, default=None)),
        "‖ΔW‖\nA | B": lambda module: _both(module, lambda side: side.spectrum.norm),
        "effective rank\nA | B": lambda module: _both(module, lambda side: side.spectrum.effective_rank),
    }
    if found.references:
        columns["strength\nA | B"] = lambda module: _both(
            module, lambda side: side.base.strength_scaled if side.base else None
        )
    columns |= {
        "B's norm\nof A's": lambda module: _share(module.norm_ratio),
        "distance\nof A's norm": lambda module: _share(module.distance),
        "cosine": lambda module: "–" if module.cosine is None else f"{module.cosine:.3f}",
        "overlap\nleft, right": lambda module: (
            f"{number(module.left_overlap)}, {number(module.right_overlap)}"
        ),
    }
    prefix = shared_prefix([module.name for module in found.modules])
    table = plain_table(f"{printable(prefix)}…" if prefix else "module", columns)
    for module in found.modules:
        name = printable(module.name.removeprefix(prefix))
        table.add_row(Text(name), *(Text(cell(module)) for cell in columns.values()))
    return table


def _both(module: ModuleDiff, measure: Callable[[Side], float | None]) -> str:
    return f"{number(measure(module.a))} | {number(measure(module.b))}"


def _share(value: float | None) -> str:
    return "–" if value is None else far(value)


def _lists(found: AdapterDiff) -> list[str]:
    told = []
    for what, names in (
        ("Only in A", found.only_a),
        ("Only in B", found.only_b),
        ("Of other shape", found.other_shape),
    ):
        if names:
            more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            told.append(f"{what}: {', '.join(printable(name) for name in names[:_LISTED])}{more}.")
    return told
