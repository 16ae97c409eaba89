"""Server-sent events as they come over the wire."""

import json

import pytest

from loramend.cli.client.events import parse

EVENT = {"id": "1-0", "at": "2026-01-01T00:00:00Z", "type": "progress", "data": {"detail": "a\u2028b\x85c"}}
WIRE = (
    b"retry: 2000\n\n: keep-alive\n\nid: 1-0\nevent: progress\ndata: "
    + json.dumps(EVENT, ensure_ascii=False).encode()
    + b'\n\nevent: status\r\ndata: {"id": "2-0",\r\n'
    + b'data: "type": "status", "data": {"status": "failed"}}\r\n\r\n'
    + b"data: no event\n\ndata: cut off"
)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_events_are_read_however_they_are_cut(size: int) -> None:
    chunks = [WIRE[start : start + size] for start in range(0, len(WIRE), size)]
    comment, progress, status, broken = parse(chunks)
    assert (comment, broken) == (None, None)
    assert progress is not None
    assert (progress.document, progress.ends) == (EVENT, False)
    assert status is not None
    assert (status.id, status.ends) == ("2-0", True)
