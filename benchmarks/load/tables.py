"""What was measured, in Markdown."""

from collections.abc import Iterable, Sequence
from statistics import quantiles

from benchmarks.load.clients import CANCEL, GET, POST, Told
from benchmarks.load.uploads import Upload


def percentiles(seconds: Sequence[float]) -> tuple[float, float, float, float]:
    """(p50, p95, p99, most)."""
    if len(seconds) < 2:
        most = max(seconds, default=0.0)
        return most, most, most, most
    cuts = quantiles(seconds, n=100, method="inclusive")
    return cuts[49], cuts[94], cuts[98], max(seconds)


def calls(runs: dict[str, Told]) -> str:
    """Every kind of call of every run: counts by status, and how long answers took."""
    rows = ["| clients | call | answers by status | p50 | p95 | p99 | longest |", _rule(7)]
    for name, told in runs.items():
        for kind in (POST, GET, CANCEL):
            if kind not in told.calls:
                continue
            answers = told.calls[kind]
            counts = ", ".join(f"{status}: {count:,}" for status, count in sorted(answers.statuses.items()))
            times = " | ".join(_time(value) for value in percentiles(answers.seconds))
            rows.append(f"| {name} | `{kind}` | {counts} | {times} |")
    return "\n".join(rows)


def jobs(runs: dict[str, Told]) -> str:
    """What became of the jobs, and what went wrong."""
    rows = ["| clients | seconds | requests/s | jobs | refused | dishonest | clients' lag, p99 |", _rule(7)]
    for name, told in runs.items():
        answered = sum(len(answers.seconds) for answers in told.calls.values())
        lag = _time(percentiles(told.lag)[2])
        rows.append(
            f"| {name} | {told.seconds:.0f} | {answered / told.seconds:.0f} | {_counts(told.ended)} | "
            f"{_counts(told.codes)} | {told.wrong_count} | {lag} |"
        )
    return "\n".join(rows)


def uploads(sent: Iterable[Upload]) -> str:
    """How the large files went."""
    rows = [
        "| call | bytes | status | seconds | MB/s | memory before | most | growth | `/healthz` then, p99 |",
        _rule(9),
    ]
    for upload in sent:
        ping = _time(percentiles(upload.pings)[2])
        rows.append(
            f"| `{upload.call}` | {upload.size:,} | {upload.status} | {upload.seconds:.1f} | "
            f"{upload.size / upload.seconds / 1e6:.0f} | {_mib(upload.before)} | {_mib(upload.peak)} | "
            f"{_mib(upload.growth)} | {ping} |"
        )
    return "\n".join(rows)


def _rule(columns: int) -> str:
    return "|" + "---|" * columns


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "none"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
