"""Webhooks outlive the workers that deliver them."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from benchmarks.faults.adapters import make_adapter
from loramend.contracts.webhook import JobWebhook
from service.jobs.records import JobRecord
from service.jobs.secrets import Sealer
from tests.fixtures.receiver import SECRET, Receiver, is_signed, receiving
from tests.fixtures.worker import Bench, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def job(bench: Bench, receiver: Receiver, tmp_path: Path) -> JobRecord:
    """A job with a webhook, sent."""
    key = Fernet.generate_key().decode()
    bench.env |= {"LORAMEND_SECRET_KEY": key, "LORAMEND_WEBHOOK_PRIVATE_HOSTS": "127.0.0.1"}
    sealed = Sealer(SecretStr(key)).seal(SecretStr(SECRET), "webhooks", "")
    webhook = JobWebhook(url=receiver.url())
    return bench.submit(make_adapter(tmp_path / "adapter"), webhook=webhook, webhook_secret=sealed)


def delivered(bench: Bench, job: JobRecord) -> JobWebhook:
    def there() -> JobWebhook | None:
        webhook = bench.get(job).webhook
        return webhook if webhook and webhook.state == "delivered" else None

    found: JobWebhook = wait_for(there, what="the delivery")
    return found


def test_it_waits_for_a_worker_of_its_queue(bench: Bench, job: JobRecord, receiver: Receiver) -> None:
    """The one that ended the job has none of the network, and is killed."""
    with bench.worker(["spectral"]) as worker:
        bench.ended(job)
        time.sleep(0.5)
        worker.process.kill()
    assert receiver.received == []
    bench.env["LORAMEND_RESEND_SECONDS"] = "0.5"
    with bench.worker(["io"]):
        assert delivered(bench, job).attempts == 1
    assert [is_signed(request) for request in receiver.received] == [True]


def test_an_attempt_cut_off_by_a_kill_is_made_again(bench: Bench, job: JobRecord, receiver: Receiver) -> None:
    receiver.hold.set()
    with bench.worker() as worker:
        wait_for(lambda: receiver.received, what="the first attempt")
        worker.process.kill()
    receiver.hold.clear()
    assert bench.get(job).webhook == JobWebhook(url=receiver.url(), attempts=1)
    # As if the time that an attempt may take had passed.
    bench.redis.hset(f"loramend:job:{job.id}", "hook_due", 1)
    bench.redis.zadd("loramend:outbox", {job.id: 1})
    with bench.worker():
        assert delivered(bench, job).attempts == 2
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert is_signed(second)


def test_a_receiver_that_holds_on_does_not_pass_for_a_stall(
    bench: Bench, job: JobRecord, receiver: Receiver, tmp_path: Path
) -> None:
    """Other messages wait behind it for longer than a worker may leave them lying."""
    receiver.hold.set()
    bench.env["LORAMEND_WEBHOOK_SECONDS"] = "13"
    with bench.worker() as worker:
        wait_for(lambda: receiver.received, what="the attempt")
        other = bench.submit(make_adapter(tmp_path / "other"))
        assert bench.ended(other).status == "succeeded"
        assert worker.process.poll() is None
        assert "takes no messages" not in worker.log.read_text()
    receiver.hold.clear()
