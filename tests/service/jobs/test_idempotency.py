"""A key gives one job, whatever becomes of the requests that bring it."""

import threading
import time

import pytest

from loramend.contracts.errors import RequestError
from service.jobs.records import new_job_id
from service.jobs.store import JobStore
from tests.service.jobs.jobs import doubled, new_record


def test_a_key_gives_one_job(store: JobStore) -> None:
    record = new_record()
    with store.claiming("key", "digest", record.id) as given:
        assert given == record.id
        for digest, code in (("digest", "idempotency_in_flight"), ("other", "idempotency_key_reused")):
            with pytest.raises(RequestError) as refused, store.claiming("key", digest, new_job_id()):
                pass
            assert refused.value.code == code
        store.create(record, idempotency="key")
    with store.claiming("key", "digest", new_job_id()) as given:
        assert given == record.id
    with pytest.raises(RequestError, match="another body"), store.claiming("key", "other", new_job_id()):
        pass
    store.delete(record.id)
    anew = new_job_id()
    with store.claiming("key", "other", anew) as given:
        assert given == anew


def test_a_claim_whose_answer_was_lost_is_made_once(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store._keys, "_claim", doubled(store._keys._claim))
    record = new_record()
    with store.claiming("key", "digest", record.id) as given:
        assert given == record.id


def test_a_request_that_failed_frees_its_key(store: JobStore) -> None:
    with pytest.raises(ValueError, match="failed"), store.claiming("key", "digest", new_job_id()):
        raise ValueError("failed")
    with store.claiming("key", "other", new_job_id()):
        pass


@pytest.mark.parametrize("made", [True, False])
def test_a_server_that_died_leaves_its_key_free_and_no_second_job(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    monkeypatch.setattr("service.jobs.idempotency.CLAIM_SECONDS", 0.2)
    first, second = new_record(), new_record()
    claim = store.claiming("key", "digest", first.id)
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    monkeypatch.setattr(threading.Thread, "join", lambda _: None)
    claim.__enter__()
    if made:
        store.create(first, idempotency="key")
    time.sleep(0.25)
    with store.claiming("key", "digest", second.id) as given:
        assert given == (first.id if made else second.id)
        if not made:
            # The first was only slow: it comes too late now.
            with pytest.raises(RequestError, match="taken up"):
                store.create(first, idempotency="key")
            store.create(second, idempotency="key")
    assert len(store.page()[0]) == 1


def test_a_claim_is_renewed_while_its_request_is_at_work(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.idempotency.CLAIM_SECONDS", 0.3)
    with store.claiming("key", "digest", new_job_id()):
        time.sleep(0.6)
        with pytest.raises(RequestError, match="still being"), store.claiming("key", "digest", new_job_id()):
            pass
