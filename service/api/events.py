"""GET /jobs/{id}/events: what happened to a job, as a list or as it happens."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from loramend.contracts.job import TERMINAL, JobEvent, JobEvents
from service.api.caller import Asker
from service.api.documents import json_response
from service.api.jobs import JobId
from service.api.negotiation import choose
from service.api.problems import documented
from service.api.schema import ref
from service.api.state import Services, Use
from service.jobs.events import follow

router = APIRouter(tags=["jobs"])

_EVENT_ID = "^[0-9]{1,19}-[0-9]{1,19}$"
_STREAM = "text/event-stream"


@router.get(
    "/jobs/{job_id}/events",
    summary="A job's events",
    responses={
        200: {
            "description": "Events, oldest first. As a stream: each event's `data` is a JobEvent, `id` its "
            "ID, `event` its type; comments keep the connection alive; it ends after the job's last event.",
            "content": {
                "application/json": {"schema": ref(JobEvents)},
                _STREAM: {
                    "schema": {"type": "string"},
                    "example": "id: 1764000000000-0\nevent: status\n"
                    'data: {"id":"1764000000000-0","at":"2026-01-01T00:00:00Z","type":"status",'
                    '"data":{"status":"queued"}}\n\n',
                },
            },
        },
        204: {"description": "The job has ended and the client has every event: it need not connect again"},
        **documented("not_found", "not_acceptable", "request_invalid"),
    },
)
async def get_events(
    services: Use,
    caller: Asker,
    job_id: JobId,
    accept: Annotated[
        str | None, Header(alias="Accept", description="application/json or text/event-stream.")
    ] = None,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", pattern=_EVENT_ID, description="Go on after this event.")
    ] = None,
    after: Annotated[
        str | None, Query(pattern=_EVENT_ID, description="The same; the header goes first.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Of a list; a stream has no limit.")] = 200,
) -> Response:
    """A list, or a stream of server-sent events where Accept asks for `text/event-stream`."""
    media = choose(accept, ["application/json", _STREAM])
    position = last_event_id or after
    record = await run_in_threadpool(services.job, job_id, caller)
    if media == _STREAM:
        if record.status in TERMINAL and position is not None:
            rest = await run_in_threadpool(services.store.events, job_id, position, 1)
            if not rest:
                return Response(status_code=204)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream(services, job_id, position), 200, headers, _STREAM)
    events = await run_in_threadpool(services.store.events, job_id, position, limit)
    return json_response(JobEvents(events=events))


async def stream(services: Services, job_id: str, after: str | None) -> AsyncIterator[str]:
    """The job's events in the server-sent format, with comments in the pauses.

    Ends after the job's last event, or when the server stops; the client then reconnects from its last event.
    """
    yield "retry: 2000\n\n"
    async for event in until_stopped(services, job_id, after):
        if event is None:
            yield ": keep-alive\n\n"
        else:
            yield f"id: {event.id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"


async def until_stopped(services: Services, job_id: str, after: str | None) -> AsyncIterator[JobEvent | None]:
    """The job's events as they happen, None for each pause of `keepalive_seconds`; ends with the server."""
    events = follow(services.events, job_id, after)
    stopping = asyncio.create_task(services.stopping.wait())
    following: asyncio.Task[JobEvent] | None = None
    try:
        while True:
            following = following or asyncio.create_task(anext(events))
            done, _ = await asyncio.wait(
                {following, stopping},
                timeout=services.settings.keepalive_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if stopping in done:
                return
            if following not in done:
                yield None
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield event
    finally:
        stopping.cancel()
        if following is not None:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                await following
        await events.aclose()


async def wait_for_end(services: Services, job_id: str, seconds: float) -> None:
    """Return when the job has ended, when the time is over, or when the server stops."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for _ in until_stopped(services, job_id, None):
                pass
