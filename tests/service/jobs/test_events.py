"""Following a job."""

import asyncio
from collections.abc import Callable

import pytest

from loramend.contracts.errors import RequestError
from loramend.contracts.job import JobEvent, Progress
from service.jobs.connect import async_redis_from_url
from service.jobs.events import follow
from service.jobs.lease import Lease
from service.jobs.store import JobStore
from tests.service.jobs.jobs import new_record


def collect(
    url: str, job_id: str, after: str | None, act: Callable[[], object] = lambda: None
) -> list[JobEvent]:
    """All events that `follow` yields while `act` runs beside it."""

    async def run() -> list[JobEvent]:
        async with async_redis_from_url(url) as client:
            acting = asyncio.create_task(asyncio.to_thread(act))
            async with asyncio.timeout(20):
                events = [event async for event in follow(client, job_id, after)]
            await acting
            return events

    return asyncio.run(run())


@pytest.fixture
def lease(store: JobStore) -> Lease:
    record = store.create(new_record())
    lease = store.acquire(record.id, "w", 30)
    assert lease is not None
    return lease


def test_events_come_as_they_happen_and_end_with_the_job(
    store: JobStore, lease: Lease, broker_url: str
) -> None:
    def work() -> None:
        for done in range(3):
            store.progress(lease, Progress(phase="repair", done=done, total=3))
        store.finish(lease, "succeeded")

    events = collect(broker_url, lease.job_id, None, work)
    assert [event.data.get("status", event.data.get("done")) for event in events] == [
        "queued", "running", 0, 1, 2, "succeeded",
    ]  # fmt: skip
    assert events == store.events(lease.job_id)
    assert collect(broker_url, lease.job_id, events[3].id) == events[4:]
    assert collect(broker_url, lease.job_id, events[-1].id) == []


def test_following_ends_where_the_job_is_deleted(
    store: JobStore, lease: Lease, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.events._BLOCK_MS", 50)
    events = collect(broker_url, lease.job_id, None, lambda: store.delete(lease.job_id))
    assert all(event.type == "status" for event in events)
    assert collect(broker_url, "0" * 32, None) == []


def test_a_malformed_id_is_refused(broker_url: str) -> None:
    with pytest.raises(RequestError) as refused:
        collect(broker_url, "0" * 32, "$")
    assert refused.value.code == "request_invalid"
