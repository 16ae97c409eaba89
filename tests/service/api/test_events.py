import json
import threading
import time

import httpx2
import pytest
from fastapi.testclient import TestClient

from loramend.contracts.job import Progress
from service.api.state import Services
from service.jobs.records import JobRecord
from tests.service.api.answers import problem
from tests.service.api.conftest import Running
from tests.service.api.finished import begun, ended, queued

STREAM = {"Accept": "text/event-stream"}


def events_of(text: str) -> list[dict[str, str]]:
    """The events of a stream; comments and `retry` left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append(fields)
    return found


def test_the_events_as_a_list(client: TestClient, services: Services) -> None:
    record = queued(services)
    lease = begun(services, record)
    services.store.progress(lease, Progress(phase="repair", done=1, total=2))
    services.store.finish(lease, "failed")
    path = f"/jobs/{record.id}/events"
    events = client.get(path).json()["events"]
    assert [(e["type"], e["data"].get("status", e["data"].get("done"))) for e in events] == [
        ("status", "queued"),
        ("status", "running"),
        ("progress", 1),
        ("status", "failed"),
    ]
    for rest in (
        client.get(path, headers={"Last-Event-ID": events[1]["id"]}),
        client.get(path, params={"after": events[1]["id"]}),
    ):
        assert rest.json()["events"] == events[2:]
    assert client.get(path, params={"limit": 1}).json()["events"] == events[:1]


def test_an_ended_job_streams_what_happened_and_closes(client: TestClient, services: Services) -> None:
    record = ended(services, "failed")
    answer = client.get(f"/jobs/{record.id}/events", headers=STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    events = events_of(answer.text)
    assert [event["event"] for event in events] == ["status"] * 3
    data = [json.loads(event["data"]) for event in events]
    assert [item["id"] for item in data] == [event["id"] for event in events]
    assert data[-1]["data"] == {"status": "failed"}
    rest = client.get(f"/jobs/{record.id}/events", headers=STREAM | {"Last-Event-ID": events[0]["id"]})
    assert events_of(rest.text) == events[1:]


def test_a_client_with_every_event_is_told_to_stop_reconnecting(
    client: TestClient, services: Services
) -> None:
    record = ended(services, "failed")
    last = client.get(f"/jobs/{record.id}/events").json()["events"][-1]["id"]
    answer = client.get(f"/jobs/{record.id}/events", headers=STREAM | {"Last-Event-ID": last})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize(
    ("headers", "query", "pointer"),
    [({"Last-Event-ID": "x"}, {}, "/header/Last-Event-ID"), ({}, {"after": "1-1-1"}, "/query/after")],
)
def test_an_event_id_is_checked(
    client: TestClient, services: Services, headers: dict[str, str], query: dict[str, str], pointer: str
) -> None:
    path = f"/jobs/{queued(services).id}/events"
    found = problem(client.get(path, headers=headers, params=query), 422, "request_invalid")
    assert found["errors"][0]["pointer"] == pointer


def test_other_representations_are_not_served(client: TestClient, services: Services) -> None:
    path = f"/jobs/{queued(services).id}/events"
    problem(client.get(path, headers={"Accept": "text/html"}), 406, "not_acceptable")


class Reader:
    """A stream read in a thread, line by line, with the time of each line."""

    def __init__(self, url: str, **headers: str) -> None:
        self.lines: list[str] = []
        self.ended = threading.Event()
        self._request = (url, STREAM | headers)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        url, headers = self._request
        with httpx2.stream("GET", url, headers=headers, timeout=30) as answer:
            for line in answer.iter_lines():
                self.lines.append(line)
        self.ended.set()

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 10
        while not any(text in line for line in self.lines):
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.01)


@pytest.fixture
def live(running: Running) -> tuple[Running, JobRecord]:
    return running, queued(running.services)


@pytest.mark.e2e
def test_events_come_as_they_happen(live: tuple[Running, JobRecord]) -> None:
    running, record = live
    services = running.services
    reader = Reader(f"{running.url}/jobs/{record.id}/events")
    reader.wait_for('"queued"')
    reader.wait_for(": keep-alive")
    lease = begun(services, record)
    reader.wait_for('"running"')
    services.store.progress(lease, Progress(phase="repair", done=7, total=9))
    reader.wait_for('"done":7')
    assert not reader.ended.is_set()
    services.store.finish(lease, "failed")
    assert reader.ended.wait(10)
    assert [event["event"] for event in events_of("\n".join(reader.lines))] == [
        "status",
        "status",
        "progress",
        "status",
    ]


@pytest.mark.e2e
def test_a_stream_goes_on_after_the_last_event_seen(live: tuple[Running, JobRecord]) -> None:
    running, record = live
    first = httpx2.get(f"{running.url}/jobs/{record.id}/events").json()["events"][0]["id"]
    reader = Reader(f"{running.url}/jobs/{record.id}/events", **{"Last-Event-ID": first})
    reader.wait_for("keep-alive")
    running.services.store.request_cancel(record.id)
    assert reader.ended.wait(10)
    events = events_of("\n".join(reader.lines))
    assert [json.loads(event["data"])["data"]["status"] for event in events] == ["canceled"]


@pytest.mark.e2e
def test_open_streams_and_waits_do_not_hold_up_a_stop(live: tuple[Running, JobRecord]) -> None:
    running, record = live
    reader = Reader(f"{running.url}/jobs/{record.id}/events")
    reader.wait_for('"queued"')
    answers: list[httpx2.Response] = []

    def wait() -> None:
        document = {"source": {"hub_id": "a/b"}}
        answers.append(
            httpx2.post(f"{running.url}/inspect", json=document, headers={"Prefer": "wait=60"}, timeout=30)
        )

    waiting = threading.Thread(target=wait)
    waiting.start()
    deadline = time.monotonic() + 10
    while len(running.services.store.page(None, 10)[0]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started = time.monotonic()
    running.stop()
    assert time.monotonic() - started < 4
    assert reader.ended.wait(5)
    waiting.join(5)
    assert answers[0].status_code == 202


@pytest.mark.e2e
def test_a_client_that_leaves_frees_its_connection(live: tuple[Running, JobRecord]) -> None:
    running, record = live
    with httpx2.stream("GET", f"{running.url}/jobs/{record.id}/events", headers=STREAM) as answer:
        next(answer.iter_lines())
    deadline = time.monotonic() + 10
    while running.server.server_state.tasks:
        assert time.monotonic() < deadline
        time.sleep(0.02)
