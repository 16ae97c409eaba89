"""Calls about jobs: make one, ask, list, cancel."""

import time
from typing import Any
from uuid import uuid4

import httpx

from loramend.cli.client.answers import JobAnswer, PageAnswer, read
from loramend.cli.client.connect import raise_for

_PAGE = 200  # the most that the server gives at a time
_ATTEMPTS = 3


def get_job(client: httpx.Client, job: str) -> tuple[JobAnswer, bytes]:
    """The job, and the document as it came. Raises the server's refusals."""
    return _job(client.get(f"/jobs/{job}"))


def cancel_job(client: httpx.Client, job: str) -> tuple[JobAnswer, bytes]:
    """Ask for the end of a job. Raises the server's refusals, `job_already_finished` among them."""
    return _job(client.post(f"/jobs/{job}/cancel"))


def get_report(client: httpx.Client, job: str) -> bytes:
    """A finished job's report as JSON."""
    response = client.get(f"/jobs/{job}/report", headers={"Accept": "application/json"})
    raise_for(response)
    return response.content


def create_job(client: httpx.Client, kind: str, document: dict[str, Any]) -> tuple[JobAnswer, bytes]:
    """POST /repair or /inspect. A broken connection is tried again under one idempotency key, so that it
    never makes two jobs. Raises the server's refusals."""
    headers = {"Idempotency-Key": uuid4().hex}
    for attempt in range(_ATTEMPTS):
        try:
            return _job(client.post(f"/{kind}", json=document, headers=headers))
        except httpx.TransportError:
            if attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(0.5 * 2**attempt)
    raise AssertionError("there is at least one attempt")


def list_jobs(
    client: httpx.Client, *, limit: int, status: str | None, kind: str | None, cursor: str | None
) -> tuple[list[JobAnswer], dict[str, Any]]:
    """The newest jobs, at most `limit`, and the same as one page of the API."""
    jobs: list[JobAnswer] = []
    raw: list[Any] = []
    while True:
        asked = {
            "limit": str(min(limit - len(jobs), _PAGE)),
            "status": status,
            "kind": kind,
            "cursor": cursor,
        }
        response = client.get("/jobs", params={name: value for name, value in asked.items() if value})
        raise_for(response)
        page = read(PageAnswer, response)
        jobs += page.jobs
        raw += response.json()["jobs"]
        cursor = page.next_cursor
        if cursor is None or len(jobs) >= limit or not page.jobs:
            return jobs, {"jobs": raw, "next_cursor": cursor}


def _job(response: httpx.Response) -> tuple[JobAnswer, bytes]:
    raise_for(response)
    return read(JobAnswer, response), response.content
