"""The campaign's table."""

from collections.abc import Sequence

from benchmarks.faults.campaign import Row

_HEAD = ("fault", "done", "jobs", "succeeded", "failed as expected", "losses", "worst time, s")


def table(rows: Sequence[Row], everywhere: int) -> str:
    """The rows in Markdown with their sum; `everywhere` counts what is wrong with no job in particular."""
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD))]
    for row in rows:
        worst = "" if row.worst is None else f"{row.worst:.1f}"
        counts = (row.done, len(row.jobs), row.succeeded, row.as_expected, len(row.losses))
        lines.append(_line([row.fault, *map(str, counts), worst]))
    sums = [
        sum(row.done for row in rows),
        sum(len(row.jobs) for row in rows),
        sum(row.succeeded for row in rows),
        sum(row.as_expected for row in rows),
        sum(len(row.losses) for row in rows) + everywhere,
    ]
    lines.append(_line(["all", *map(str, sums), ""]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
