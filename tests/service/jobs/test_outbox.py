"""A webhook is due from the write that ends its job until it is delivered or given up."""

import time
from typing import Any

import pytest
import redis

from loramend.contracts.webhook import JobWebhook
from service.jobs.outbox import Attempts, Outbox, Outcome
from service.jobs.records import JobRecord
from service.jobs.state import StateTable
from service.jobs.store import JobStore
from tests.service.jobs.conftest import RESEND_SECONDS
from tests.service.jobs.jobs import doubled, new_record

URL = "https://example.org/hook"
OK = Outcome(True, "answered 204")
DOWN = Outcome(False, "answered 503")
ATTEMPTS = Attempts(most=3, pause=0.02, longest=0.05)


@pytest.fixture
def outbox(redis_client: "redis.Redis") -> Outbox:
    return Outbox(redis_client, ATTEMPTS, resend_seconds=RESEND_SECONDS)


def ended(store: JobStore, how: str = "failed", **fields: Any) -> JobRecord:
    """A job with a webhook, at its end."""
    given = {"webhook": JobWebhook(url=URL), "webhook_secret": "sealed"} | fields
    record = store.create(new_record(**given))
    if how == "canceled":
        return store.request_cancel(record.id)
    lease = store.acquire(record.id, "worker", 30)
    assert lease is not None
    return store.finish(lease, "failed")


def told(store: JobStore, job_id: str) -> list[tuple[str, int]]:
    """State and attempt of each of the job's webhook events."""
    events = [event.data for event in store.events(job_id) if event.type == "webhook"]
    return [(data["state"], data["attempt"]) for data in events]


def webhook(store: JobStore, job_id: str) -> JobWebhook:
    record = store.get(job_id)
    assert record is not None
    assert record.webhook is not None
    return record.webhook


def due(client: "redis.Redis") -> list[str]:
    return [str(job_id) for job_id in client.zrange("loramend:outbox", 0, -1)]


@pytest.mark.parametrize("how", ["failed", "canceled"])
def test_the_write_that_ends_the_job_makes_it_due(
    store: JobStore, outbox: Outbox, redis_client: "redis.Redis", how: str
) -> None:
    waiting = store.create(new_record(webhook=JobWebhook(url=URL)))
    assert ended(store, webhook=None).webhook is None
    assert due(redis_client) == outbox.claim() == []
    record = ended(store, how)
    assert due(redis_client) == [record.id]
    assert outbox.take(record.id) is None, "no message was sent yet"
    assert outbox.take(waiting.id) is None
    assert outbox.claim() == [record.id]
    assert outbox.claim() == [], "another was faster"


def test_what_is_delivered_is_done_with(store: JobStore, outbox: Outbox, redis_client: "redis.Redis") -> None:
    record = ended(store)
    outbox.claim()
    taken = outbox.take(record.id)
    assert taken is not None
    assert (taken.webhook_secret, taken.webhook) == ("sealed", JobWebhook(url=URL, attempts=1))
    assert outbox.take(record.id) is None, "the message came twice"
    outbox.settle(record.id, 1, OK)
    assert webhook(store, record.id) == JobWebhook(url=URL, state="delivered", attempts=1)
    after = store.get(record.id)
    assert after is not None
    assert after.webhook_secret is None
    assert due(redis_client) == []
    outbox.settle(record.id, 1, DOWN)
    assert outbox.take(record.id) is None
    assert told(store, record.id) == [("delivered", 1)]


def test_failures_wait_longer_each_time_and_end(
    store: JobStore, outbox: Outbox, redis_client: "redis.Redis"
) -> None:
    record = ended(store)
    for attempt in (1, 2, 3):
        claimed_after(outbox, record.id)
        assert outbox.take(record.id) is not None
        outbox.settle(record.id, attempt, DOWN)
        if attempt < 3:
            at = redis_client.zscore("loramend:outbox", record.id)
            assert at is not None
            wait = float(str(at)) / 1000 - time.time()
            assert 0.5 * 0.02 * 4 ** (attempt - 1) < wait <= 0.02 * 4 ** (attempt - 1) + 0.001
            assert outbox.claim() == []
            assert outbox.take(record.id) is None, "an old message makes it come no sooner"
    assert told(store, record.id) == [("waiting", 1), ("waiting", 2), ("given_up", 3)]
    assert webhook(store, record.id).state == "given_up"
    assert due(redis_client) == []


def test_some_failures_are_final(store: JobStore, outbox: Outbox, redis_client: "redis.Redis") -> None:
    record = ended(store)
    outbox.claim()
    outbox.take(record.id)
    outbox.settle(record.id, 1, Outcome(False, "answered 410", final=True))
    assert told(store, record.id) == [("given_up", 1)]
    assert due(redis_client) == []


def test_a_message_that_nobody_takes_up_is_sent_again(store: JobStore, outbox: Outbox) -> None:
    record = ended(store)
    assert outbox.claim() == [record.id]
    claimed_after(outbox, record.id, at_least=0.8 * RESEND_SECONDS)
    claimed_after(outbox, record.id, at_least=1.8 * RESEND_SECONDS)
    assert outbox.take(record.id) is not None


def test_an_attempt_whose_worker_was_killed_is_made_again(store: JobStore, outbox: Outbox) -> None:
    record = ended(store)
    for _ in range(ATTEMPTS.most):
        claimed_after(outbox, record.id)
        assert outbox.take(record.id) is not None
    claimed_after(outbox, record.id)
    assert outbox.take(record.id) is None
    assert told(store, record.id) == [("given_up", 3)]


def test_an_attempt_that_ends_late_counts_until_another_begins(store: JobStore, outbox: Outbox) -> None:
    late, later = ended(store), ended(store)
    for record in (late, later):
        outbox.claim()
        outbox.take(record.id)
    claimed_after(outbox, late.id, later.id)
    outbox.settle(late.id, 1, OK)
    assert outbox.take(late.id) is None
    outbox.take(later.id)
    outbox.settle(later.id, 1, OK)
    assert webhook(store, later.id) == JobWebhook(url=URL, attempts=2)


def test_a_deleted_job_is_nobodys_to_deliver(
    store: JobStore, outbox: Outbox, redis_client: "redis.Redis"
) -> None:
    record = ended(store)
    outbox.claim()
    outbox.take(record.id)
    store.delete(record.id)
    outbox.settle(record.id, 1, OK)
    assert due(redis_client) == []
    assert outbox.claim() == []
    assert outbox.take(record.id) is None


def test_writes_sent_twice_are_done_once(
    store: JobStore, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    table: StateTable = outbox._table
    monkeypatch.setattr(table, "_compare_and_set", doubled(table._compare_and_set))
    record = ended(store)
    assert outbox.claim() == [record.id]
    assert outbox.take(record.id) is not None
    outbox.settle(record.id, 1, DOWN)
    outbox.settle(record.id, 1, DOWN)
    assert told(store, record.id) == [("waiting", 1)]


def claimed_after(outbox: Outbox, *job_ids: str, at_least: float = 0.0) -> None:
    """Returns once these are claimed."""
    begun = time.monotonic()
    left = set(job_ids)
    while left:
        assert time.monotonic() - begun < 10
        left -= set(outbox.claim())
        time.sleep(0.002)
    assert time.monotonic() - begun >= at_least
