"""Training state in the storage, under the lease's fence."""

import pytest

from loramend.contracts.errors import LoramendError
from service.jobs.lease import LeaseLost
from service.jobs.records import BlobRef
from tests.worker.working import retaken, working
from worker.checkpoints import StoredCheckpoints
from worker.job import Work
from worker.settings import WorkerSettings


def save(work: Work, key: str, content: bytes) -> BlobRef:
    path = work.folder / "new"
    path.write_bytes(content)
    StoredCheckpoints(work).save(key, path)
    return work.record.checkpoints[key]


def load(work: Work, key: str) -> bytes | None:
    path = StoredCheckpoints(work).load(key)
    return path.read_bytes() if path else None


def test_the_next_worker_finds_the_newest_state_of_each_run(own_settings: WorkerSettings) -> None:
    with working(own_settings) as work:
        assert load(work, "a") is None
        old = save(work, "a", b"step 1")
        save(work, "b", b"another run")
        save(work, "a", b"step 2")
        assert load(work, "a") == b"step 2"
        assert work.tools.store.blobs.sweep(work.tools.storage) == [old.sha256]
        work.tools.store.release(work.lease)
    with retaken(own_settings, work.record.id) as work:
        assert (load(work, "a"), load(work, "b"), load(work, "c")) == (b"step 2", b"another run", None)


def test_a_worker_that_lost_its_lease_replaces_nothing(own_settings: WorkerSettings) -> None:
    with working(own_settings) as late:
        kept = save(late, "a", b"step 1")
        late.tools.store.release(late.lease)
        with retaken(own_settings, late.record.id) as work:
            with pytest.raises(LeaseLost):
                save(late, "a", b"step 2")
            assert work.tools.store.held(work.lease).checkpoints == {"a": kept}
            assert load(work, "a") == b"step 1"


def test_the_end_of_the_job_lets_them_go(own_settings: WorkerSettings) -> None:
    with working(own_settings) as work:
        ref = save(work, "a", b"step 1")
        ended = work.tools.store.finish(work.lease, "canceled")
    assert ended.checkpoints == {}
    assert work.tools.store.blobs.sweep(work.tools.storage) == [ref.sha256]
    assert work.tools.storage.exists(ref.sha256) is None


def test_without_its_file_a_run_starts_anew(own_settings: WorkerSettings) -> None:
    with working(own_settings) as work:
        work.tools.storage.delete(save(work, "a", b"step 1").sha256)
        assert load(work, "a") is None


def test_training_goes_on_where_a_checkpoint_cannot_be_stored(
    own_settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> BlobRef:
        raise LoramendError("storage_unavailable", "The storage is full.")

    with working(own_settings) as work:
        kept = save(work, "a", b"step 1")
        monkeypatch.setattr(work.tools.storage, "put_file", full)
        assert save(work, "a", b"step 2") == kept
