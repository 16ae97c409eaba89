"""What may happen to a job, and who may do it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
import redis

from loramend.contracts.errors import JobError, LoramendError, RequestError
from loramend.contracts.job import JobResult, Progress
from service.jobs.lease import Lease, LeaseLost
from service.jobs.records import JobRecord, Queue
from service.jobs.store import JobStore
from tests.service.jobs.conftest import RESEND_SECONDS
from tests.service.jobs.jobs import blob, doubled, new_record


def acquired(store: JobStore, record: JobRecord, worker: str = "w1", ttl: float = 30) -> Lease:
    lease = store.acquire(record.id, worker, ttl)
    assert lease is not None
    return lease


def get(store: JobStore, record: JobRecord) -> JobRecord:
    found = store.get(record.id)
    assert found is not None
    return found


def statuses(store: JobStore, record: JobRecord) -> list[str]:
    return [event.data["status"] for event in store.events(record.id) if event.type == "status"]


def test_a_job_reads_back_as_written(store: JobStore) -> None:
    record = new_record(input={"adapter_config.json": blob("a")}, seed=2**63 - 1)
    store.create(record)
    assert store.get(record.id) == record
    assert store.get("0" * 32) is None
    with pytest.raises(ValueError, match="exists"):
        store.create(record)


def test_the_public_job_has_no_internal_fields(store: JobStore) -> None:
    public = new_record(input={"adapter_config.json": blob("a")}).public().model_dump()
    internal = {"input", "output", "archive", "phase_queue", "references", "data_files", "checkpoints"}
    assert not internal & public.keys()


def test_a_job_runs_to_its_end(store: JobStore) -> None:
    record = store.create(new_record())
    lease = acquired(store, record)
    running = get(store, record)
    assert (running.status, running.attempts) == ("running", 1)
    assert running.started_at is not None
    store.progress(lease, Progress(phase="repair", done=1, total=2))
    result = JobResult(report_digest="f" * 64)
    store.finish(lease, "succeeded", result=result, report=blob("report"))
    ended = get(store, record)
    assert (ended.status, ended.result, ended.report) == ("succeeded", result, blob("report"))
    assert ended.finished_at is not None
    assert ended.finished_at >= running.started_at
    events = store.events(record.id)
    assert [event.type for event in events] == ["status", "status", "progress", "status"]
    assert statuses(store, record) == ["queued", "running", "succeeded"]
    assert store.events(record.id, after=events[1].id) == events[2:]
    assert store.acquire(record.id, "w2", 30) is None


def test_only_one_worker_holds_a_job(store: JobStore) -> None:
    record = store.create(new_record())
    taken: list[Lease | None] = []
    threads = [
        threading.Thread(target=lambda name=f"w{n}": taken.append(store.acquire(record.id, name, 30)))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([lease for lease in taken if lease]) == 1
    assert get(store, record).attempts == 1


def test_the_same_worker_takes_over_from_its_dead_child(store: JobStore) -> None:
    record = store.create(new_record())
    first = acquired(store, record, "w1")
    second = acquired(store, record, "w1")
    assert second.fence > first.fence
    assert get(store, record).attempts == 2
    with pytest.raises(LeaseLost):
        store.progress(first, Progress(phase="repair", done=1, total=2))


def test_a_message_for_another_phase_is_left_alone(store: JobStore) -> None:
    record = store.create(new_record(phase_queue="io"))
    assert store.acquire(record.id, "w1", 30, queue="spectral") is None
    assert store.acquire(record.id, "w1", 30, queue="io") is not None


def test_a_stale_lease_writes_nothing(store: JobStore) -> None:
    record = store.create(new_record())
    stale = acquired(store, record, ttl=0.02)
    time.sleep(0.04)
    fresh = acquired(store, record, "w2")
    assert fresh.fence > stale.fence
    before = get(store, record), store.events(record.id)
    assert not store.renew(stale, 30)
    for write in (
        lambda: store.finish(stale, "succeeded"),
        lambda: store.update(stale, seed=7),
        lambda: store.hand_on(stale, "io"),
        lambda: store.release(stale),
        lambda: store.cancel_requested(stale),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert (get(store, record), store.events(record.id)) == before
    assert store.renew(fresh, 30)


def test_renewing_keeps_a_lease(store: JobStore) -> None:
    record = store.create(new_record())
    lease = acquired(store, record, ttl=0.15)
    for _ in range(4):
        time.sleep(0.06)
        assert store.renew(lease, 0.15)
        assert store.reap() == []
    assert get(store, record).status == "running"


def test_a_lease_that_ran_out_is_requeued_then_failed(store: JobStore) -> None:
    record = store.create(new_record())
    acquired(store, record, "w1", ttl=0.02)
    time.sleep(0.03)
    assert store.reap() == [(record.id, "spectral")]
    assert get(store, record).status == "queued"
    assert store.reap() == []
    acquired(store, record, "w2", ttl=0.02)
    time.sleep(0.03)
    assert store.reap() == []
    ended = get(store, record)
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.code == "worker_lost"
    assert ended.attempts == 2
    assert store.events(record.id)[-1].data["error"]["code"] == "worker_lost"


def test_a_job_out_of_attempts_is_failed_where_it_is_taken_up(store: JobStore) -> None:
    record = store.create(new_record())
    acquired(store, record, "w1")
    acquired(store, record, "w1")
    assert store.acquire(record.id, "w1", 30) is None
    assert get(store, record).status == "failed"


def test_a_canceled_job_whose_worker_died_is_not_run_again(store: JobStore) -> None:
    record = store.create(new_record())
    acquired(store, record, ttl=0.1)
    assert store.request_cancel(record.id).status == "running"
    time.sleep(0.12)
    assert store.reap() == []
    assert get(store, record).status == "canceled"


def test_a_lost_message_is_sent_again_ever_less_often(store: JobStore) -> None:
    record = store.create(new_record())
    assert store.reap() == []
    time.sleep(RESEND_SECONDS * 1.2)
    assert store.reap() == [(record.id, "spectral")]
    time.sleep(RESEND_SECONDS * 1.2)
    assert store.reap() == []
    time.sleep(RESEND_SECONDS)
    assert store.reap() == [(record.id, "spectral")]
    assert statuses(store, record) == ["queued"]


def test_handing_on_counts_no_attempt_and_is_reaped_when_its_message_is_lost(store: JobStore) -> None:
    record = store.create(new_record(phase_queue="io"))
    lease = acquired(store, record)
    store.update(lease, input={"adapter_config.json": blob("a")})
    store.hand_on(lease, "spectral")
    waiting = get(store, record)
    assert (waiting.status, waiting.phase_queue) == ("running", "spectral")
    with pytest.raises(LeaseLost):
        store.progress(lease, Progress(phase="fetch", done=1, total=1))
    time.sleep(RESEND_SECONDS * 1.2)
    assert store.reap() == [(record.id, "spectral")]
    acquired(store, record, "w2")
    assert get(store, record).attempts == 1


def test_a_released_job_waits_again_without_having_used_an_attempt(store: JobStore) -> None:
    record = store.create(new_record())
    for _ in range(5):
        assert store.release(acquired(store, record)) == "spectral"
    waiting = get(store, record)
    assert (waiting.status, waiting.attempts) == ("queued", 0)


def test_cancel(store: JobStore) -> None:
    queued = store.create(new_record())
    assert store.request_cancel(queued.id).status == "canceled"
    assert store.acquire(queued.id, "w1", 30) is None
    with pytest.raises(RequestError) as refused:
        store.request_cancel(queued.id)
    assert refused.value.code == "job_already_finished"

    running = store.create(new_record())
    lease = acquired(store, running)
    assert not store.cancel_requested(lease)
    asked = store.request_cancel(running.id)
    assert (asked.status, asked.cancel_requested) == ("running", True)
    assert store.request_cancel(running.id).cancel_requested
    assert store.cancel_requested(lease)
    store.finish(lease, "canceled")
    assert statuses(store, running) == ["queued", "running", "canceled"]

    waiting = store.create(new_record())
    store.hand_on(acquired(store, waiting), "io")
    assert store.request_cancel(waiting.id).status == "canceled"

    with pytest.raises(RequestError) as missing:
        store.request_cancel("0" * 32)
    assert missing.value.code == "not_found"


def test_finish_takes_no_status_that_ends_nothing(store: JobStore) -> None:
    lease = acquired(store, store.create(new_record()))
    with pytest.raises(ValueError, match="ends no job"):
        store.finish(lease, "running")
    with pytest.raises(TypeError, match="no such fields"):
        store.update(lease, sed=1)


def test_pages(store: JobStore) -> None:
    made: list[JobRecord] = []
    for n in range(7):
        made.append(store.create(new_record(kind="inspect" if n % 2 else "repair")))
        time.sleep(0.002)
    newest = [record.id for record in reversed(made)]
    first, cursor = store.page(None, 3)
    second, cursor = store.page(cursor, 3)
    third, end = store.page(cursor, 3)
    assert [record.id for record in [*first, *second, *third]] == newest
    assert end is None
    assert store.page(None, 7)[1] is None
    inspections, more = store.page(None, 2, kind="inspect")
    assert [record.id for record in inspections] == [made[5].id, made[3].id]
    assert [record.id for record in store.page(more, 2, kind="inspect")[0]] == [made[1].id]
    store.request_cancel(made[2].id)
    assert [record.id for record in store.page(None, 5, status="canceled")[0]] == [made[2].id]
    assert store.counts() == {"queued": 6, "running": 0, "succeeded": 0, "failed": 0, "canceled": 1}


def test_a_deleted_job_leaves_nothing(store: JobStore, redis_client: "redis.Redis") -> None:
    record = store.create(new_record(input={"a": blob("a")}))
    lease = acquired(store, record)
    assert store.delete(record.id) == [blob("a").sha256]
    assert store.get(record.id) is None
    assert store.page()[0] == []
    with pytest.raises(LeaseLost):
        store.finish(lease, "succeeded")
    with pytest.raises(RequestError, match="no job"):
        store.delete(record.id)
    left = cast(list[str], redis_client.keys("*"))
    assert [key for key in left if record.id in key] == []


def test_every_result_goes_with_its_job(store: JobStore) -> None:
    record = store.create(new_record(input={"a": blob("a")}))
    store.finish(
        acquired(store, record),
        "succeeded",
        output={"f": blob("file")},
        archive=blob("archive"),
        report=blob("report"),
        report_html=blob("page"),
    )
    left = {blob(name).sha256 for name in ("a", "file", "archive", "report", "page")}
    assert set(store.delete(record.id)) == left


def test_workers_that_stopped_beating_are_forgotten(store: JobStore) -> None:
    store.heartbeat_worker("a", 30)
    store.heartbeat_worker("b", 0.02)
    assert sorted(store.workers()) == ["a", "b"]
    time.sleep(0.04)
    assert store.workers() == ["a"]
    store.forget_worker("a")
    assert store.workers() == []


@pytest.mark.parametrize("queue", ["io", "spectral"])
def test_reap_names_the_queue_of_the_phase_that_was_lost(store: JobStore, queue: Queue) -> None:
    record = store.create(new_record(phase_queue=queue))
    acquired(store, record, ttl=0.01)
    time.sleep(0.02)
    assert store.reap() == [(record.id, queue)]


def test_a_write_whose_answer_was_lost_is_done_once(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store._table, "_compare_and_set", doubled(store._table._compare_and_set))
    record = store.create(new_record())
    lease = acquired(store, record)
    store.progress(lease, Progress(phase="repair", done=1, total=2))
    store.finish(lease, "succeeded", result=JobResult(report_digest="f" * 64))
    assert get(store, record).attempts == 1
    told = [event.data.get("status", event.type) for event in store.events(record.id)]
    assert told == ["queued", "running", "progress", "succeeded"]


def test_an_error_that_may_pass_sets_the_job_back(store: JobStore) -> None:
    full = LoramendError("disk_full", "The disk is full.").problem()
    record = store.create(new_record())
    waiting = store.set_back(acquired(store, record), full)
    assert (waiting.status, waiting.attempts, waiting.error) == ("queued", 1, None)
    assert store.reap() == []
    time.sleep(RESEND_SECONDS * 1.2)
    assert store.reap() == [(record.id, "spectral")]
    failed = store.set_back(acquired(store, record), full)
    assert (failed.status, failed.attempts, failed.error) == ("failed", 2, full)
    asked = store.create(new_record())
    lease = acquired(store, asked)
    store.request_cancel(asked.id)
    assert store.set_back(lease, full).status == "canceled"


@pytest.mark.parametrize(("starved", "code"), [(True, "out_of_memory"), (False, "worker_lost")])
def test_a_death_is_told_with_its_cause(store: JobStore, starved: bool, code: str) -> None:
    record = store.create(new_record())
    store.lose(acquired(store, record), out_of_memory=starved)
    assert get(store, record).status == "queued"
    lease = acquired(store, record)
    store.lose(lease, out_of_memory=False)
    error = get(store, record).error
    assert error is not None
    assert error.code == code
    with pytest.raises(LeaseLost):
        store.lose(lease, out_of_memory=True)


def test_an_error_ends_up_in_the_job_and_its_last_event(store: JobStore) -> None:
    record = store.create(new_record())
    problem = JobError("out_of_memory", "The job ran out of memory.").problem()
    store.finish(acquired(store, record), "failed", error=problem)
    assert get(store, record).error == problem
    assert store.events(record.id)[-1].data == {"status": "failed", "error": problem.model_dump(mode="json")}


def test_an_event_id_is_checked(store: JobStore) -> None:
    record = store.create(new_record())
    with pytest.raises(RequestError) as refused:
        store.events(record.id, after="no id")
    assert refused.value.code == "request_invalid"


def test_an_owners_jobs_are_listed_apart(store: JobStore) -> None:
    hers = [store.create(new_record(owner="alice")) for _ in range(3)]
    his, nobodys = store.create(new_record(owner="bob")), store.create(new_record())
    assert [record.id for record in store.page(owner="bob")[0]] == [his.id]
    first, cursor = store.page(None, 2, owner="alice")
    second, end = store.page(cursor, 2, owner="alice")
    assert [record.id for record in first + second] == sorted((record.id for record in hers), reverse=True)
    assert end is None
    assert len(store.page()[0]) == 5
    store.request_cancel(hers[0].id)
    assert [record.id for record in store.page(status="canceled", owner="alice")[0]] == [hers[0].id]
    assert len(store.page(status="queued", owner="alice")[0]) == 2
    for record in (*hers, his, nobodys):
        store.delete(record.id)
    assert store.page(owner="alice") == ([], None)


def test_an_owner_has_so_many_unfinished_jobs(store: JobStore) -> None:
    first = store.create(new_record(owner="alice"), max_active=2)
    second = store.create(new_record(owner="alice"), max_active=2)
    assert store.acquire(second.id, "w", 30) is not None
    with pytest.raises(RequestError) as refused:
        store.create(new_record(owner="alice"), max_active=2)
    assert refused.value.code == "quota_exceeded"
    with pytest.raises(RequestError, match="2 unfinished jobs"):
        store.check_active("alice", 2)
    store.check_active("alice", 3)
    store.check_active("alice", 0)
    store.create(new_record(owner="bob"), max_active=2)
    store.create(new_record(owner="alice"), max_active=0)
    store.request_cancel(first.id)
    store.delete(second.id)
    store.create(new_record(owner="alice"), max_active=2)


def test_the_quota_holds_however_many_ask_at_once(store: JobStore) -> None:
    def ask(_: int) -> bool:
        try:
            store.create(new_record(owner="alice"), max_active=5)
        except RequestError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(40))) == 5
    assert len(store.page(owner="alice")[0]) == 5
