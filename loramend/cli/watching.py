"""Following a job of a server, for `loramend watch` and `loramend submit`."""

import json
from contextlib import nullcontext, suppress

import httpx
import typer
from pydantic import BaseModel, ConfigDict, ValidationError

from loramend.cli.client.answers import EventAnswer, JobAnswer, progress_of
from loramend.cli.client.connect import connected, detail_of
from loramend.cli.client.events import backlog, follow
from loramend.cli.client.jobs import get_job, get_report
from loramend.cli.errors import CommandError, printable
from loramend.cli.progress import progress_on_stderr
from loramend.cli.tables import summary_lines
from loramend.contracts.errors import ErrorCode, JobError
from loramend.contracts.report import Report


class _Told(BaseModel):
    """What is shown of a report."""

    model_config = ConfigDict(extra="ignore")

    summary: list[str] = []
    caveats: list[str] = []


def until_ended(
    server: str, key: str | None, job: str, *, events_on_stdout: bool
) -> tuple[JobAnswer, list[str]]:
    """Follow a job to its end: events as lines of JSON on stdout, or progress on stderr. Returns the job and
    what its report says in short.

    Raises JobError with the job's own code where it did not succeed, CommandError `interrupted` on Ctrl-C.
    """
    try:
        with connected(server, key) as client:
            _follow(client, job, events_on_stdout=events_on_stdout)
            ended, _ = get_job(client, job)
            if ended.status != "succeeded":
                code = ended.error.known_code if ended.error else _CODES.get(ended.status)
                why = f": {detail_of(ended.error)}" if ended.error else ""
                raise JobError(
                    code or "job_not_successful",
                    f"job {job} {_PAST.get(ended.status, f'is {ended.status}')}{why}",
                )
            return ended, _summary(get_report(client, job))
    except KeyboardInterrupt:
        raise CommandError(
            "interrupted", f"watching has stopped, job {job} goes on: loramend cancel {job} ends it"
        ) from None


_PAST = {"failed": "failed", "canceled": "was canceled"}
_CODES: dict[str, ErrorCode] = {"canceled": "canceled"}


def _follow(client: httpx.Client, job: str, *, events_on_stdout: bool) -> None:
    with nullcontext() if events_on_stdout else progress_on_stderr() as on_progress:
        # Of what is past, only where it stands: a bar filled by old events would tell a wrong time left.
        past = backlog(client, job)
        shown = past if events_on_stdout else [event for event in past if event.type == "progress"][-1:]

        def show(event: EventAnswer) -> None:
            if on_progress is None:
                typer.echo(json.dumps(event.document))
            elif event.type == "progress" and (step := progress_of(event.data)) is not None:
                on_progress(step)

        for event in shown:
            show(event)
        if not any(event.ends for event in past):
            for event in follow(client, job, past[-1].id if past else None):
                show(event)


def _summary(report: bytes) -> list[str]:
    """The report's answers and caveats; of one by another version what can be read, which may be nothing."""
    with suppress(ValidationError):
        return summary_lines(Report.model_validate_json(report))
    try:
        told = _Told.model_validate_json(report)
    except ValidationError:
        return []
    return [printable(line) for line in (*told.summary, *told.caveats)]
