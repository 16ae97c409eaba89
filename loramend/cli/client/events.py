"""A job's events as they happen, over a connection that may break."""

import time
from collections.abc import Iterable, Iterator

import httpx
from pydantic import ValidationError

from loramend.cli.client.answers import EventAnswer, EventsAnswer, read
from loramend.cli.client.connect import raise_for
from loramend.contracts.errors import RequestError

PATIENCE = 120.0  # seconds that a server may be away, as for a restart
_PAUSE = 1.0
_PASSING = frozenset(
    {"broker_unavailable", "storage_unavailable", "disk_full", "not_ready", "internal_error"}
)
_LIMIT = 1000


def backlog(client: httpx.Client, job: str) -> list[EventAnswer]:
    """What has happened so far."""
    events: list[EventAnswer] = []
    while True:
        after = {"after": events[-1].id} if events else {}
        response = client.get(f"/jobs/{job}/events", params={"limit": str(_LIMIT), **after})
        raise_for(response)
        page = read(EventsAnswer, response).events
        events += page
        if len(page) < _LIMIT:
            return events


def follow(
    client: httpx.Client, job: str, after: str | None, *, patience: float = PATIENCE
) -> Iterator[EventAnswer]:
    """Events after that one as they happen, up to the job's last. A connection that breaks is made anew and
    goes on where it broke, for as long as the server is not away longer than `patience`.

    Raises httpx.HTTPError or RequestError once it is, and the server's other refusals at once.
    """
    heard = time.monotonic()
    while True:
        try:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
            with client.stream("GET", f"/jobs/{job}/events", headers=headers) as response:
                if response.is_error:
                    response.read()
                raise_for(response)
                if response.status_code == httpx.codes.NO_CONTENT:
                    return
                for event in parse(response.iter_bytes()):
                    heard = time.monotonic()
                    if event is None:
                        continue
                    after = event.id
                    yield event
                    if event.ends:
                        return
        except httpx.HTTPError:
            if time.monotonic() - heard > patience:
                raise
        except RequestError as error:
            if error.code not in _PASSING or time.monotonic() - heard > patience:
                raise
        time.sleep(_PAUSE)


def parse(chunks: Iterable[bytes]) -> Iterator[EventAnswer | None]:
    """Server-sent events out of a body's chunks; None for a comment or what is no event of ours.

    Lines end with LF alone: a module's name in the data may hold what other splitters take for a line's end.
    """
    rest = b""
    data: list[bytes] = []
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield _event(b"\n".join(data))
                data = []
            elif line.startswith(b":"):
                yield None


def _event(data: bytes) -> EventAnswer | None:
    try:
        return EventAnswer.model_validate_json(data)
    except ValidationError:
        return None
