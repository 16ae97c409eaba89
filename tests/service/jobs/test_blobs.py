"""Blobs live as long as anybody refers to them."""

import threading
import time
from pathlib import Path

import pytest
import redis

from service.jobs.records import BlobRef, DataFile
from service.jobs.state import PREFIX
from service.jobs.storage import Storage
from service.jobs.store import JobStore
from tests.service.jobs.jobs import blob, new_record


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path.as_uri())


def put(storage: Storage, store: JobStore, text: str, holder: str, seconds: float = 60) -> BlobRef:
    store.blobs.hold([blob(text).sha256], holder, seconds)
    return storage.put_bytes(text.encode())


def there(storage: Storage, ref: BlobRef) -> bool:
    return storage.exists(ref.sha256) is not None


def test_deleting_one_of_two_jobs_keeps_the_blob_they_share(store: JobStore, storage: Storage) -> None:
    one, two = new_record(), new_record()
    for record in (one, two):
        shared, own = put(storage, store, "shared", record.id), put(storage, store, record.id, record.id)
        store.create(record.model_copy(update={"input": {"a": shared, "b": own}}))
    shared, own_one, own_two = blob("shared"), blob(one.id), blob(two.id)
    assert sorted(store.blobs.holders(shared.sha256)) == sorted([one.id, two.id])

    free = store.delete(one.id)
    assert free == [own_one.sha256]
    store.blobs.delete(free, storage)
    assert [there(storage, ref) for ref in (shared, own_one, own_two)] == [True, False, True]

    store.blobs.delete(store.delete(two.id), storage)
    assert [there(storage, ref) for ref in (shared, own_one, own_two)] == [False, False, False]


def test_an_upload_keeps_its_blob_until_it_runs_out(store: JobStore, storage: Storage) -> None:
    ref = put(storage, store, "upload", "upload", 0.1)
    record = store.create(new_record(input={"a": ref}))
    assert store.delete(record.id) == []
    assert store.blobs.sweep(storage) == []
    assert there(storage, ref)
    time.sleep(0.12)
    assert store.blobs.sweep(storage) == [ref.sha256]
    assert not there(storage, ref)
    assert store.blobs.sweep(storage) == []


def test_a_shorter_hold_does_not_cut_a_longer_one(store: JobStore, storage: Storage) -> None:
    ref = put(storage, store, "upload", "upload", 60)
    store.blobs.hold([ref.sha256], "upload", 0.01)
    time.sleep(0.02)
    assert store.blobs.sweep(storage) == []
    assert there(storage, ref)


def test_a_job_keeps_a_blob_whose_hold_ran_out(store: JobStore, storage: Storage) -> None:
    record = new_record()
    ref = put(storage, store, "file", record.id, 0.01)
    store.create(record.model_copy(update={"input": {"a": ref}}))
    time.sleep(0.02)
    assert store.blobs.sweep(storage) == []
    assert there(storage, ref)


def test_a_blob_that_a_record_no_longer_names_is_swept(store: JobStore, storage: Storage) -> None:
    record = new_record()
    old, new = put(storage, store, "old", record.id), put(storage, store, "new", record.id)
    store.create(record.model_copy(update={"report": old}))
    lease = store.acquire(record.id, "w", 30)
    assert lease is not None
    store.update(lease, report=new)
    assert store.blobs.sweep(storage) == [old.sha256]
    assert there(storage, new)


def test_a_checkpoint_lives_until_the_next_or_the_end_and_text_as_long_as_the_job(
    store: JobStore, storage: Storage
) -> None:
    record = new_record()
    text = put(storage, store, "text", record.id)
    file = DataFile(name="clean.jsonl", **text.model_dump())
    store.create(record.model_copy(update={"data_files": {"clean": file}}))
    old, new = put(storage, store, "old", record.id), put(storage, store, "new", record.id)
    lease = store.acquire(record.id, "w", 30)
    assert lease is not None
    store.update(lease, checkpoints={"k": old})
    assert store.blobs.sweep(storage) == []
    store.update(lease, checkpoints={"k": new})
    assert store.blobs.sweep(storage) == [old.sha256]
    store.release(lease)
    waiting = store.get(record.id)
    assert waiting is not None
    assert waiting.checkpoints == {"k": new}
    store.request_cancel(record.id)
    assert store.blobs.sweep(storage) == [new.sha256]
    assert there(storage, text)
    assert store.delete(record.id) == [text.sha256]


def test_a_blob_being_deleted_cannot_be_held_before_it_is_gone(store: JobStore, storage: Storage) -> None:
    record = new_record()
    ref = put(storage, store, "same", record.id)
    store.create(record.model_copy(update={"input": {"a": ref}}))
    free = store.delete(record.id)
    assert free == [ref.sha256]
    order: list[str] = []

    def come_back() -> None:
        store.blobs.hold([ref.sha256], "upload", 60)
        order.append("held")
        storage.put_bytes(b"same")

    thread = threading.Thread(target=come_back)
    thread.start()
    time.sleep(0.1)
    order.append("deleted")
    store.blobs.delete(free, storage)
    thread.join()
    assert order == ["deleted", "held"]
    assert there(storage, ref)
    assert store.blobs.sweep(storage) == []


def test_a_deletion_cut_short_is_finished_by_the_sweep(
    store: JobStore, storage: Storage, redis_client: "redis.Redis"
) -> None:
    record = new_record()
    ref = put(storage, store, "orphan", record.id)
    store.create(record.model_copy(update={"input": {"a": ref}}))
    assert store.delete(record.id) == [ref.sha256]
    assert there(storage, ref)
    assert store.blobs.sweep(storage) == []
    # A minute later.
    redis_client.delete(f"{PREFIX}deleting:{ref.sha256}")
    redis_client.zadd(f"{PREFIX}holds", {ref.sha256: 0})
    assert store.blobs.sweep(storage) == [ref.sha256]
    assert not there(storage, ref)
