"""Noticing when a job's work must stop, in time and not too often."""

import time

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError

from loramend.contracts.errors import JobError
from loramend.contracts.job import Progress
from service.jobs.lease import Lease, LeaseLost
from service.jobs.store import JobStore
from tests.service.jobs.jobs import new_record
from worker.keeper import HandBack, Keeper, keeping
from worker.process import WorkerProcess


@pytest.fixture
def store(redis_client: "redis.Redis") -> JobStore:
    return JobStore(redis_client)


@pytest.fixture
def process() -> WorkerProcess:
    return WorkerProcess(["spectral"])


@pytest.fixture
def lease(store: JobStore, process: WorkerProcess) -> Lease:
    lease = store.acquire(store.create(new_record()).id, process.name, 30)
    assert lease is not None
    return lease


def tick(done: int, phase: str = "repair") -> Progress:
    return Progress.model_validate({"phase": phase, "done": done, "total": 1000})


def told(store: JobStore, lease: Lease) -> list[tuple[str, int]]:
    events = store.events(lease.job_id)
    return [(event.data["phase"], event.data["done"]) for event in events if event.type == "progress"]


def test_progress_is_told_at_the_ends_of_a_phase_and_now_and_then(
    store: JobStore, lease: Lease, process: WorkerProcess
) -> None:
    keeper = Keeper(store, lease, process, ttl=30, period=60)
    for done in range(1001):
        keeper.on_progress(tick(done))
    keeper.on_progress(tick(0, "write"))
    assert told(store, lease) == [("repair", 0), ("repair", 1000), ("write", 0)]
    often = Keeper(store, lease, process, ttl=30, period=0)
    for done in (1, 2):
        often.on_progress(tick(done, "write"))
    assert told(store, lease)[3:] == [("write", 1), ("write", 2)]


def test_a_cancel_request_stops_the_work_at_the_next_look(
    store: JobStore, lease: Lease, process: WorkerProcess
) -> None:
    keeper = Keeper(store, lease, process, ttl=30, period=0.05)
    keeper.on_progress(tick(1))
    keeper.check()
    store.request_cancel(lease.job_id)
    keeper.on_progress(tick(2))
    time.sleep(0.06)
    with pytest.raises(JobError) as canceled:
        keeper.on_progress(tick(3))
    assert canceled.value.code == "canceled"
    with pytest.raises(JobError):
        keeper.check()


def test_the_work_goes_on_while_the_store_is_away(
    store: JobStore, lease: Lease, process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise RedisConnectionError

    with keeping(store, lease, process, ttl=0.1, period=0) as keeper, monkeypatch.context() as patch:
        patch.setattr(store, "renew", away)
        patch.setattr(store, "progress", away)
        keeper.on_progress(tick(1))
        time.sleep(0.3)
        keeper.on_progress(tick(2))
        patch.undo()
        time.sleep(0.1)
        keeper.on_progress(tick(3))
    assert told(store, lease) == [("repair", 3)]


def test_a_lease_taken_away_stops_the_work(store: JobStore, lease: Lease, process: WorkerProcess) -> None:
    with keeping(store, lease, process, ttl=0.15, period=60) as keeper:
        keeper.on_progress(tick(1))
        store.delete(lease.job_id)
        time.sleep(0.1)
        with pytest.raises(LeaseLost):
            keeper.on_progress(tick(2))


def test_the_lease_is_renewed_as_long_as_the_block_runs(
    store: JobStore, lease: Lease, process: WorkerProcess
) -> None:
    assert store.renew(lease, 0.2)
    with keeping(store, lease, process, ttl=0.2, period=60):
        time.sleep(0.4)
        assert store.reap() == []
    time.sleep(0.25)
    assert store.reap() == [(lease.job_id, "spectral")]


def test_shutdown_hands_back_after_its_grace(store: JobStore, lease: Lease, process: WorkerProcess) -> None:
    keeper = Keeper(store, lease, process, ttl=30, period=60)
    process.stop_in(0.05)
    process.stop_in(60)
    keeper.on_progress(tick(1))
    time.sleep(0.06)
    with pytest.raises(HandBack):
        keeper.on_progress(tick(2))


def test_numbers_that_json_lacks_are_left_out(store: JobStore, lease: Lease, process: WorkerProcess) -> None:
    keeper = Keeper(store, lease, process, ttl=30, period=0)
    values = {"loss": float("nan"), "omega": float("inf"), "samples_per_second": 2.0}
    keeper.on_progress(Progress(phase="train", done=1, total=2, unit="steps", values=values))
    record = store.held(lease)
    assert record.progress is not None
    assert record.progress.values == {"samples_per_second": 2.0}
    assert store.events(lease.job_id)[-1].data["values"] == {"samples_per_second": 2.0}
