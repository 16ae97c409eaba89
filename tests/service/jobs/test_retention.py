"""What expires: by age and by size, the oldest first, and never what runs, waits or is shared."""

import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from service.jobs.records import BlobRef, JobRecord, new_job_id
from service.jobs.retention import Expiry, Retention
from service.jobs.state import PREFIX, job_key
from service.jobs.storage import Storage
from service.jobs.store import JobStore
from tests.service.jobs.jobs import blob, new_record

UPLOAD_SECONDS = 60.0
MiB = 1 << 20


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "blobs").as_uri())


def put(storage: Storage, store: JobStore, content: bytes, holder: str) -> BlobRef:
    ref = blob(content.decode())
    store.blobs.hold([ref.sha256], holder, UPLOAD_SECONDS)
    return storage.put_bytes(content)


def made(
    storage: Storage, store: JobStore, *contents: bytes, end: bool = True, job_id: str | None = None
) -> JobRecord:
    """A job with these files, which has failed unless it is to run on."""
    record = new_record(id=job_id or new_job_id())
    files = {str(number): put(storage, store, content, record.id) for number, content in enumerate(contents)}
    store.create(record.model_copy(update={"input": files}))
    lease = store.acquire(record.id, "w", 60)
    assert lease is not None
    time.sleep(0.002)  # IDs sort by the millisecond
    return store.finish(lease, "failed") if end else store.held(lease)


def expire(
    client: "redis.Redis", storage: Storage, *, seconds: float = 0, max_bytes: int = 0, within: float = 60
) -> bool:
    retention = Retention(seconds, max_bytes, UPLOAD_SECONDS)
    return Expiry(client, JobStore(client), storage, retention).run(within)


def left(store: JobStore) -> list[str]:
    """IDs, oldest first."""
    return [record.id for record in store.page(limit=200)[0]][::-1]


def consistent(store: JobStore, storage: Storage, tmp_path: Path) -> None:
    """Every file that a job names is there, and every file that is there is named."""
    named = {digest for record in store.page(limit=200)[0] for digest in record.blobs()}
    there = {path.name for path in (tmp_path / "blobs").rglob("*") if path.is_file()}
    assert there == named == set(storage.sizes())


def old_id() -> str:
    """Of a job that was made an hour ago."""
    now = new_job_id()
    return f"{int(now[:12], 16) - 3_600_000:012x}{now[12:]}"


def ended_long_ago(client: "redis.Redis", storage: Storage, store: JobStore, *contents: bytes) -> JobRecord:
    """A job that was made, and failed, an hour ago."""
    record = made(storage, store, *contents, job_id=old_id())
    assert record.finished_at is not None
    past = record.model_copy(update={"finished_at": record.finished_at - timedelta(hours=1)})
    client.hset(job_key(record.id), "record", past.model_dump_json())
    return past


def test_jobs_go_a_while_after_they_ended(
    store: JobStore, storage: Storage, redis_client: "redis.Redis", tmp_path: Path
) -> None:
    old = [
        ended_long_ago(redis_client, storage, store, *contents) for contents in ([b"1"], [b"2", b"shared"])
    ]
    waiting = store.create(new_record(id=old_id(), input={"a": put(storage, store, b"3", "x")}))
    running = made(storage, store, b"4", end=False, job_id=old_id())
    young = made(storage, store, b"shared")
    assert expire(redis_client, storage, seconds=7200)
    assert len(left(store)) == 5
    assert expire(redis_client, storage, seconds=1800)
    assert left(store) == [*sorted([waiting.id, running.id]), young.id]
    consistent(store, storage, tmp_path)
    assert not redis_client.keys(f"{PREFIX}events:{old[0].id}")
    assert expire(redis_client, storage), "0 is no limit"
    assert len(left(store)) == 3


def test_a_job_made_long_ago_that_ended_just_now_stays(
    store: JobStore, storage: Storage, redis_client: "redis.Redis"
) -> None:
    record = store.create(new_record(id=old_id()))
    store.request_cancel(record.id)
    assert expire(redis_client, storage, seconds=1800)
    assert left(store) == [record.id]


def test_the_oldest_go_until_the_rest_fits(
    store: JobStore, storage: Storage, redis_client: "redis.Redis", tmp_path: Path
) -> None:
    running = made(storage, store, b"r" * MiB, end=False)
    jobs = [made(storage, store, bytes([65 + number]) * MiB, b"shared") for number in range(5)]
    assert expire(redis_client, storage, max_bytes=6 * MiB + 6)
    assert left(store) == [running.id, *(job.id for job in jobs)]
    assert expire(redis_client, storage, max_bytes=4 * MiB)
    assert left(store) == [running.id, jobs[3].id, jobs[4].id]
    consistent(store, storage, tmp_path)
    assert storage.exists(blob("shared").sha256)
    assert expire(redis_client, storage, max_bytes=1)
    assert left(store) == [running.id]
    consistent(store, storage, tmp_path)


def test_unused_uploads_go_by_age_among_the_jobs(
    store: JobStore, storage: Storage, redis_client: "redis.Redis"
) -> None:
    first = put(storage, store, b"a" * MiB, "upload")
    time.sleep(0.002)
    job = made(storage, store, b"b" * MiB)
    newest = put(storage, store, b"c" * MiB, "upload")
    in_use = put(storage, store, b"r" * MiB, "upload")
    made(storage, store, b"r" * MiB, end=False)
    assert expire(redis_client, storage, max_bytes=3 * MiB)
    assert storage.exists(first.sha256) is None
    assert store.get(job.id) is not None
    assert expire(redis_client, storage, max_bytes=2 * MiB)
    assert store.get(job.id) is None
    assert storage.exists(newest.sha256)
    assert expire(redis_client, storage, max_bytes=1)
    assert storage.exists(newest.sha256) is None
    assert storage.exists(in_use.sha256), "a running job's"


def test_an_upload_that_is_the_jobs_own_file_goes_with_it(
    store: JobStore, storage: Storage, redis_client: "redis.Redis"
) -> None:
    put(storage, store, b"a" * MiB, "upload")
    first, second = made(storage, store, b"a" * MiB), made(storage, store, b"b" * MiB)
    assert expire(redis_client, storage, max_bytes=MiB)
    assert [store.get(first.id), storage.exists(blob("a" * MiB).sha256)] == [None, None]
    assert store.get(second.id) is not None


def test_a_round_ends_in_time_and_one_process_at_a_time_has_it(
    store: JobStore, storage: Storage, redis_client: "redis.Redis"
) -> None:
    jobs = [made(storage, store, b"a") for _ in range(3)]
    assert not expire(redis_client, storage, seconds=1e-3, within=-1), "there is more to do"
    assert len(left(store)) == 3
    redis_client.set(f"{PREFIX}expiring", "1")
    assert expire(redis_client, storage, seconds=1e-3)
    assert left(store) == [job.id for job in jobs]
    redis_client.delete(f"{PREFIX}expiring")
    assert expire(redis_client, storage, seconds=1e-3)
    assert left(store) == []
    assert not redis_client.exists(f"{PREFIX}expiring")


# Dies, as by an unplugged machine, in the middle of the third job's files.
_KILLED = """
import os, signal, sys
from service.jobs.connect import redis_from_url
from service.jobs.retention import Expiry, Retention
from service.jobs.storage import Storage
from service.jobs.store import JobStore

class Dying(Storage):
    deleted = 0

    def delete(self, sha256):
        if self.deleted == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        self.deleted += 1
        super().delete(sha256)

redis = redis_from_url(sys.argv[1])
Expiry(redis, JobStore(redis), Dying(sys.argv[2]), Retention(1e-3, 0, 60)).run(60)
"""


@pytest.mark.e2e
def test_killed_in_the_middle_it_leaves_nothing_dangling(
    store: JobStore, storage: Storage, redis_client: "redis.Redis", broker_url: str, tmp_path: Path
) -> None:
    jobs = [made(storage, store, f"{number}a".encode(), f"{number}b".encode()) for number in range(5)]
    command = [sys.executable, "-c", _KILLED, broker_url, (tmp_path / "blobs").as_uri()]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert left(store) == [job.id for job in jobs[3:]]
    named = {digest for job in jobs[3:] for digest in job.blobs()}
    assert named < set(storage.sizes()), "a file is left of the third, and none is missing of the others"
    # As time does: the lock and the marks of what is being deleted run out, then a sweep is due.
    assert redis_client.pttl(f"{PREFIX}expiring") > 0
    marks = redis_client.keys(f"{PREFIX}deleting:*")
    assert all(redis_client.pttl(mark) > 0 for mark in marks)
    redis_client.delete(f"{PREFIX}expiring", *marks)
    redis_client.zadd(f"{PREFIX}holds", dict.fromkeys(redis_client.zrange(f"{PREFIX}holds", 0, -1), 0))
    assert len(store.blobs.sweep(storage)) == 1
    consistent(store, storage, tmp_path)
    assert expire(redis_client, storage, seconds=1e-3)
    assert left(store) == []
    consistent(store, storage, tmp_path)
    assert not redis_client.keys(f"{PREFIX}blob:*")
