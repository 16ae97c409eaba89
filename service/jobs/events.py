"""A job's events, as a list and as they happen."""

import json
import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import redis.asyncio

from loramend.contracts.errors import RequestError
from loramend.contracts.job import TERMINAL, JobEvent
from service.jobs.records import JobRecord
from service.jobs.state import events_key, job_key

# How long one read waits; between reads a deleted job is noticed.
_BLOCK_MS = 5000
_AT_ONCE = 200


def stream_id(event_id: str) -> str:
    """The event id, checked. Raises RequestError `request_invalid`."""
    if not re.fullmatch(r"\d{1,19}(-\d{1,19})?", event_id):
        raise RequestError(
            "request_invalid", f"{event_id[:64]!r} is no event id: give the id of an event of this job."
        )
    return event_id


def parse_event(entry_id: str, fields: dict[str, str]) -> JobEvent:
    """A stream entry as an event."""
    at = datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC)
    return JobEvent.model_validate(
        {"id": entry_id, "at": at, "type": fields["type"], "data": json.loads(fields["data"])}
    )


async def follow(
    client: "redis.asyncio.Redis", job_id: str, after: str | None
) -> AsyncGenerator[JobEvent, None]:
    """The job's events after `after`, then each new one as it happens, up to the one that ends the job.

    Stops too where the job is gone, or has ended and has no more to tell. Raises RequestError
    `request_invalid` for a malformed `after`.
    """
    last = stream_id(after) if after else "0"
    block: int | None = None
    while True:
        # Read before the stream is: an ended job has written its last event by then.
        ended = await _ended(client, job_id)
        reply: Any = await client.xread({events_key(job_id): last}, count=_AT_ONCE, block=block)
        rows = reply[0][1] if reply else []
        for entry_id, fields in rows:
            last = entry_id
            event = parse_event(entry_id, fields)
            yield event
            if event.type == "status" and event.data.get("status") in TERMINAL:
                return
        if not rows and ended:
            return
        block = _BLOCK_MS if not rows else None


async def _ended(client: "redis.asyncio.Redis", job_id: str) -> bool:
    raw: Any = await client.hget(job_key(job_id), "record")
    return raw is None or JobRecord.model_validate_json(raw).status in TERMINAL
