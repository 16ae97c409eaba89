"""Jobs as tables and lines for a terminal."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import typer
from rich.text import Text

from loramend.cli.client.answers import JobAnswer, progress_of
from loramend.cli.client.connect import detail_of
from loramend.cli.errors import printable
from loramend.cli.progress import phase_words
from loramend.cli.tables import plain_table, print_whole


def print_jobs(jobs: Sequence[JobAnswer], next_cursor: str | None) -> None:
    """A row a job, newest first."""
    if not jobs:
        typer.echo("No jobs.")
        return
    table = plain_table("job", ("kind", "status", "created", "adapter", "progress"))
    for column in table.columns:
        column.justify = "left"
    for job in jobs:
        cells = (job.id, job.kind, _status(job), _time(job.created_at), _source(job.source), _progress(job))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    print_whole(table)
    if next_cursor:
        typer.echo(f"There are more: --cursor {printable(next_cursor)}, or a higher --limit")


def print_job(job: JobAnswer, server: str) -> None:
    """What is known of one job, and what can be done next."""
    threat = f", threat {job.threat}" if job.threat else ""
    lines = {
        "job": job.id,
        "kind": job.kind + threat,
        "adapter": _source(job.source),
        "status": _status(job),
        "progress": _progress(job),
        "attempts": str(job.attempts) if job.attempts > 1 else "",
        "created": _time(job.created_at),
        "ended": _time(job.finished_at) + ("" if job.seconds is None else f", after {job.seconds:.1f} s"),
        "error": f"{job.error.code}: {detail_of(job.error)}" if job.error else "",
        "next": next_command(job, server),
    }
    for name, value in lines.items():
        if value:
            typer.echo(f"{name:<9} {printable(value)}")


def next_command(job: JobAnswer, server: str) -> str:
    """The command that goes on from here; empty where there is none."""
    url = f"{server}/jobs/{job.id}"
    if not job.ended:
        return f"loramend watch {url}"
    if job.result and job.result.adapter_digest:
        return f"loramend pull {url} --out repaired"
    if job.status == "succeeded":
        return f"curl -H 'Accept: text/html' {url}/report > report.html"
    return ""


def _status(job: JobAnswer) -> str:
    return f"{job.status}, to be canceled" if job.cancel_requested and not job.ended else job.status


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def _source(source: dict[str, Any]) -> str:
    if source.get("hub_id"):
        revision = source.get("revision")
        return f"{source['hub_id']}@{revision}" if revision else str(source["hub_id"])
    return f"upload {str(source['upload'])[:12]}" if source.get("upload") else ""


def _progress(job: JobAnswer) -> str:
    """`Training 30 of 100 steps` while it runs, its error's code where it failed."""
    if job.ended:
        return job.error.code or "" if job.error else ""
    told = progress_of(job.progress)
    if told is None:
        return ""
    return f"{phase_words(told.phase)} {told.done:,} of {told.total:,} {told.unit}"
