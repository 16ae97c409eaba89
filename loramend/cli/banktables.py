"""A bank as tables and lines for a terminal."""

from rich.table import Table
from rich.text import Text

from loramend.bank.file import OpenBank
from loramend.bank.groups import Group, groups
from loramend.bank.words import NAMES
from loramend.cli.errors import printable
from loramend.cli.tables import number, plain_table, print_lines, print_whole
from loramend.evaluation.words import percent

_LISTED = 10


def print_bank(opened: OpenBank) -> None:
    """A table a group of comparable adapters, with who is in it."""
    for group in groups(opened.bank):
        print_whole(group_table(group))
        print_lines(group_lines(group))
        print_lines([])
    print_lines(
        [printable(f"{len(opened.bank.adapters)} adapters in {opened.name}, sha256 {opened.sha256}.")]
    )


def group_table(group: Group) -> Table:
    """How each statistic of whole adapters is distributed."""
    count = len(group.adapters)
    first = f"{count} comparable adapters" if count > 1 else "1 adapter"
    table = plain_table(first, ("low", "median", "high"))
    for each in group.statistics:
        table.add_row(
            Text(NAMES[each.name]), *(number(value) for value in (each.low, each.median, each.high))
        )
    return table


def group_lines(group: Group) -> list[str]:
    """Who is in it, what they have in common, and how far the comparison can be trusted."""
    modules = group.adapters[0].modules
    ranks = sorted({module.rank for module in modules})
    bases = sorted({adapter.base_model or "none" for adapter in group.adapters})
    names = [adapter.name for adapter in group.adapters]
    rate = group.false_positives
    lines = [
        f"Modules: {len(modules)}. Rank: {', '.join(map(str, ranks))}. Base model named: {_some(bases)}.",
        f"Adapters: {_some(names)}.",
        "Too few to set another beside them."
        if rate is None
        else f"Each beside the others, {rate.count} of {rate.n} are called unlike them: {percent(rate)}.",
    ]
    return [printable(line) for line in lines]


def _some(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
