"""The job store: what may happen to a job, and who may do it.

    queued ──acquire──> running ──finish──> succeeded | failed | canceled
       ^                  │  │
       └─ release, reap ──┘  └─ hand_on: still running, waiting for another queue

A worker writes under a lease; a lease that ran out is taken away by `reap`, and what its holder writes after
that raises LeaseLost.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, cast

from redis import Redis

from loramend.contracts.errors import Problem, RequestError
from loramend.contracts.job import TERMINAL, JobEvent, JobResult, JobStatus, Progress
from loramend.contracts.request import JobKind
from service.jobs.blobs import DELETING_MS, BlobTable
from service.jobs.events import parse_event, stream_id
from service.jobs.idempotency import IdempotencyTable, claim_key
from service.jobs.lease import Lease, LeaseLost
from service.jobs.records import BlobRef, JobRecord, Queue
from service.jobs.state import (
    ACTIVE,
    PREFIX,
    Change,
    Event,
    State,
    StateTable,
    events_key,
    index_prefixes,
    server_ms,
    status_event,
    too_many,
)
from service.jobs.transitions import as_datetime, ended, holds, lost, set_back, waiting, with_fields

_PAGE_READ = 100
_REAP_AT_ONCE = 200
_PAST: dict[JobStatus, str] = {"succeeded": "succeeded", "failed": "failed", "canceled": "been canceled"}
_STATUSES: tuple[JobStatus, ...] = ("queued", "running", "succeeded", "failed", "canceled")


class JobStore:
    """Jobs in Redis.

    max_attempts  a job whose lease ran out that many times is failed with `worker_lost`
    resend_seconds  a job waiting that long is sent again, then after twice the time, and so on
    """

    def __init__(self, redis: "Redis", *, max_attempts: int = 3, resend_seconds: float = 60) -> None:
        self._redis = redis
        self._table = StateTable(redis)
        self._keys = IdempotencyTable(redis)
        self._max_attempts = max_attempts
        self._resend_ms = int(resend_seconds * 1000)
        self.blobs = BlobTable(redis)

    # Creating and reading

    def claiming(self, key: str, digest: str, job_id: str) -> AbstractContextManager[str]:
        """Claim a key before its body is worked on; see IdempotencyTable.claiming."""
        return self._keys.claiming(key, digest, job_id)

    def create(self, record: JobRecord, *, idempotency: str | None = None, max_active: int = 0) -> JobRecord:
        """Store a new job; with `idempotency`, only while that key is claimed for it.

        Raises RequestError `quota_exceeded` where its owner has `max_active` unfinished jobs; 0 is no limit.
        Raises RequestError `idempotency_in_flight` where another request has claimed the key meanwhile.
        """
        claim = claim_key(idempotency) if idempotency is not None else None
        now = server_ms(self._redis)
        state = State(record=record, version=1, now=now, sends=1, due=now + self._resend_ms)
        if not self._table.insert(state, max_active=max_active, claim=claim):
            raise ValueError(f"job {record.id} exists")
        return record

    def check_active(self, owner: str, max_active: int) -> None:
        """Refuse early what `create` would refuse. Raises RequestError `quota_exceeded`."""
        pipe = self._redis.pipeline(transaction=False)
        for status in ACTIVE:
            pipe.zcard(f"{index_prefixes(owner)[-1]}status:{status}")
        if 0 < max_active <= sum(pipe.execute()):
            raise too_many(max_active)

    def get(self, job_id: str) -> JobRecord | None:
        """The job; None where there is none with that id."""
        state = self._table.read(job_id)
        return state.record if state else None

    def page(
        self,
        cursor: str | None = None,
        limit: int = 50,
        status: JobStatus | None = None,
        kind: JobKind | None = None,
        owner: str | None = None,
    ) -> tuple[list[JobRecord], str | None]:
        """At most `limit` jobs, newest first, after the one named by `cursor`, and the next cursor; with
        `owner`, of that owner's."""
        index = index_prefixes(owner)[-1] + (f"status:{status}" if status else "jobs")
        found: list[JobRecord] = []
        upper = f"({cursor}" if cursor else "+"
        while True:
            ids = cast(list[str], self._redis.zrevrangebylex(index, upper, "-", 0, _PAGE_READ))
            for state in self._table.read_many(ids):
                # Deleted or moved to another status since the index was read.
                if state is None or (status and state.record.status != status):
                    continue
                if kind and state.record.kind != kind:
                    continue
                if len(found) == limit:
                    return found, found[-1].id
                found.append(state.record)
            if len(ids) < _PAGE_READ:
                return found, None
            upper = f"({ids[-1]}"

    def oldest(self, made_before: int | None = None) -> Iterator[JobRecord]:
        """The jobs that have ended, in the order in which they were made; with `made_before`, a time in ms,
        no later ones."""
        upper = "+" if made_before is None else f"({made_before:012x}"
        lower = "-"
        while True:
            ids = cast(list[str], self._redis.zrangebylex(f"{PREFIX}jobs", lower, upper, 0, _PAGE_READ))
            for state in self._table.read_many(ids):
                if state is not None and state.record.status in TERMINAL:
                    yield state.record
            if len(ids) < _PAGE_READ:
                return
            lower = f"({ids[-1]}"

    def counts(self) -> dict[JobStatus, int]:
        """How many jobs there are of each status."""
        pipe = self._redis.pipeline(transaction=False)
        for status in _STATUSES:
            pipe.zcard(f"{PREFIX}status:{status}")
        return dict(zip(_STATUSES, pipe.execute(), strict=True))

    def events(self, job_id: str, after: str | None = None, limit: int = 1000) -> list[JobEvent]:
        """The job's events after the one with id `after`, oldest first."""
        lower = f"({stream_id(after)}" if after else "-"
        rows = self._redis.xrange(events_key(job_id), lower, "+", count=limit)
        return [parse_event(*row) for row in cast(list[tuple[str, dict[str, str]]], rows)]

    # What a client may ask

    def request_cancel(self, job_id: str) -> JobRecord:
        """Cancel: at once where no worker is at it, else at the worker's next look.

        Raises RequestError `not_found`, `job_already_finished`.
        """

        def decide(state: State) -> Change | None:
            record = state.record
            if record.status in TERMINAL:
                raise RequestError("job_already_finished", f"The job has already {_PAST[record.status]}.")
            asked = record.model_copy(update={"cancel_requested": True})
            if not state.leased:
                return ended(replace(state, record=asked), "canceled")
            return (replace(state, record=asked), None) if not record.cancel_requested else None

        self._table.change(job_id, decide)
        return self._existing(job_id)

    def delete(self, job_id: str) -> list[str]:
        """Remove the job. Returns the digests of the blobs that nothing refers to any more: pass them to
        `blobs.delete`. Raises RequestError `not_found`."""
        free = self._table.delete(job_id, deleting_ms=DELETING_MS)
        if free is None:
            raise _not_found(job_id)
        return free

    # What a worker may do

    def acquire(self, job_id: str, worker: str, ttl: float, *, queue: Queue | None = None) -> Lease | None:
        """Take the lease for `ttl` seconds. None where another worker holds it, where the job has ended, is
        gone, or waits for another queue than `queue`.

        `worker` names one process that runs one job at a time: a lease it already holds is its dead child's,
        and is taken over. A job out of attempts is failed instead.
        """

        def decide(state: State) -> Change | None:
            record = state.record
            if record.status in TERMINAL or (queue and record.phase_queue != queue):
                return None
            if state.leased and state.worker != worker:
                return None
            if state.worker:
                gone = lost(state, self._max_attempts, self._resend_ms)
                if gone[0].record.status in TERMINAL:
                    return gone
                record = gone[0].record
            waited = record.status == "queued"
            record = record.model_copy(
                update={
                    "status": "running",
                    "attempts": record.attempts + waited,
                    "started_at": record.started_at or as_datetime(state.now),
                }
            )
            until = state.now + int(ttl * 1000)
            new = replace(
                state,
                record=record,
                fence=state.fence + 1,
                worker=worker,
                lease_until=until,
                due=until,
                sends=0,
            )
            return new, status_event(record) if waited else None

        taken = self._table.change(job_id, decide)
        if taken is None or not taken.worker:
            return None
        return Lease(job_id, taken.fence, worker)

    def is_held(self, job_id: str, fence: int) -> bool:
        """Whether the lease with that fence is still the job's."""
        state = self._table.read(job_id)
        return state is not None and bool(state.worker) and state.fence == fence

    def renew(self, lease: Lease, ttl: float) -> bool:
        """Hold the lease for `ttl` seconds from now; False where it is lost."""

        def decide(state: State) -> Change:
            until = state.now + int(ttl * 1000)
            return replace(state, lease_until=until, due=until), None

        try:
            self._under(lease, decide)
        except LeaseLost:
            return False
        return True

    def cancel_requested(self, lease: Lease) -> bool:
        """Whether a client asked to cancel. Raises LeaseLost."""
        return self.held(lease).cancel_requested

    def has_ended(self, job_id: str) -> bool:
        """Whether there is nothing more to do for the job: it has ended, or is gone."""
        record = self.get(job_id)
        return record is None or record.status in TERMINAL

    def held(self, lease: Lease) -> JobRecord:
        """The job as it is now. Raises LeaseLost."""
        state = self._table.read(lease.job_id)
        if state is None or not holds(state, lease):
            raise LeaseLost
        return state.record

    def update(self, lease: Lease, **fields: Any) -> JobRecord:
        """Set fields of the record, without an event. Raises LeaseLost."""

        def decide(state: State) -> Change:
            return with_fields(state, fields), None

        return self._under(lease, decide)

    def progress(self, lease: Lease, progress: Progress) -> JobRecord:
        """Tell how far the job is, and read it back. Raises LeaseLost."""

        def decide(state: State) -> Change:
            return with_fields(state, {"progress": progress}), Event(
                "progress", progress.model_dump(mode="json")
            )

        return self._under(lease, decide)

    def hand_on(self, lease: Lease, queue: Queue) -> None:
        """Give the lease back and let `queue` go on with the job; send the message after this. Raises
        LeaseLost."""

        def decide(state: State) -> Change:
            return waiting(with_fields(state, {"phase_queue": queue}), self._resend_ms), None

        self._under(lease, decide)

    def release(self, lease: Lease) -> Queue:
        """Give the job back, to be run from the start of its phase, without counting the attempt. Returns its
        queue; send the message after this. Raises LeaseLost."""

        def decide(state: State) -> Change:
            fields = {"status": "queued", "attempts": max(0, state.record.attempts - 1), "progress": None}
            new = waiting(with_fields(state, fields), self._resend_ms)
            return new, status_event(new.record)

        return self._under(lease, decide).phase_queue

    def set_back(self, lease: Lease, error: Problem) -> JobRecord:
        """Give the job back after an error that may pass, to be sent again by the reaper; after as many
        attempts as a job has it is failed with that error. Raises LeaseLost."""

        def decide(state: State) -> Change:
            return set_back(state, error, self._max_attempts, self._resend_ms)

        return self._under(lease, decide)

    def lose(self, lease: Lease, *, out_of_memory: bool) -> None:
        """Say that the worker's process died under this lease, and whether for want of memory. Raises
        LeaseLost."""

        def decide(state: State) -> Change:
            if out_of_memory:
                state = with_fields(state, {"starved": state.record.starved + 1})
            return lost(state, self._max_attempts, self._resend_ms)

        self._under(lease, decide)

    def finish(
        self,
        lease: Lease,
        status: JobStatus,
        *,
        result: JobResult | None = None,
        error: Problem | None = None,
        output: dict[str, BlobRef] | None = None,
        archive: BlobRef | None = None,
        report: BlobRef | None = None,
        report_html: BlobRef | None = None,
        report_sarif: BlobRef | None = None,
    ) -> JobRecord:
        """End the job. Fields left None keep what the record has. Raises LeaseLost."""
        files = {
            "output": output,
            "archive": archive,
            "report": report,
            "report_html": report_html,
            "report_sarif": report_sarif,
        }
        given = {"result": result, "error": error, **files}
        fields = {name: value for name, value in given.items() if value is not None}

        def decide(state: State) -> Change:
            return ended(with_fields(state, fields), status)

        return self._under(lease, decide)

    # What the reaper does

    def reap(self) -> list[tuple[str, Queue]]:
        """Take away leases that ran out and find jobs that waited too long. Returns what to send, as (job id,
        queue). Jobs out of attempts are failed with `worker_lost`; canceled ones end as canceled."""
        now = server_ms(self._redis)
        ids = cast(list[str], self._redis.zrangebyscore(f"{PREFIX}due", "-inf", now, 0, _REAP_AT_ONCE))

        def decide(state: State) -> Change | None:
            if state.record.status in TERMINAL or state.due > state.now:
                return None
            if state.worker:
                return lost(state, self._max_attempts, self._resend_ms)
            return waiting(state, self._resend_ms, sends=state.sends + 1), None

        changed = [self._table.change(job_id, decide) for job_id in ids]
        return [(s.record.id, s.record.phase_queue) for s in changed if s and s.record.status not in TERMINAL]

    def heartbeat_worker(self, name: str, ttl: float, *, publishes: bool = False) -> None:
        """Say that a worker lives, for the next `ttl` seconds, and whether it has a Hub token of its own to
        publish with. Its name is its queues, joined by "+", then "@" and what tells it from others."""
        now = server_ms(self._redis)
        pipe = self._redis.pipeline()
        pipe.zadd(f"{PREFIX}workers", {name: now + int(ttl * 1000)})
        if publishes:
            pipe.set(f"{PREFIX}publisher", name, px=int(ttl * 1000))
        pipe.zremrangebyscore(f"{PREFIX}workers", "-inf", now)
        pipe.execute()

    def forget_worker(self, name: str) -> None:
        """Say that a worker has stopped."""
        self._redis.zrem(f"{PREFIX}workers", name)

    def workers(self) -> list[str]:
        """The workers that live."""
        return cast(list[str], self._redis.zrangebyscore(f"{PREFIX}workers", server_ms(self._redis), "+inf"))

    def served_queues(self) -> frozenset[str]:
        """The queues that some live worker serves."""
        return frozenset(queue for name in self.workers() for queue in name.partition("@")[0].split("+"))

    def has_publisher(self) -> bool:
        """Whether some live worker has a Hub token of its own."""
        return bool(self._redis.exists(f"{PREFIX}publisher"))

    def _existing(self, job_id: str) -> JobRecord:
        record = self.get(job_id)
        if record is None:
            raise _not_found(job_id)
        return record

    def _under(self, lease: Lease, decide: Callable[[State], Change]) -> JobRecord:
        def checked(state: State) -> Change:
            if not holds(state, lease):
                raise LeaseLost
            return decide(state)

        state = self._table.change(lease.job_id, checked)
        if state is None:
            raise LeaseLost
        return state.record


def _not_found(job_id: str) -> RequestError:
    return RequestError("not_found", f"There is no job {job_id}.")
