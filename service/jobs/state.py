"""A job's state in Redis and the one compare-and-set that changes it.

Keys, all under `loramend:`

    job:<id>        hash: the record as JSON, version, lease (fence, worker, lease_until), sends, due,
                    hook_sends, hook_due, write
    events:<id>     stream of the job's events; its entry ids are the event ids
    jobs            sorted set of all job ids; ids sort by time, so pages go by member
    status:<s>      the same for each status
    owner:<o>:jobs, owner:<o>:status:<s>  the same two for the jobs of an API key's owner
    due             job id by the time (ms) at which the reaper must look at it
    outbox          ended job by the time (ms) at which the reaper must look at its webhook
    token:<id>      the job's Hub token, encrypted
    blob:<sha256>   sorted set: who refers to a blob, until when (ms; +inf for jobs)
    holds           digest by the time (ms) at which a temporary reference may have run out
    upload:<o>:<sha256>  set while an owner may name an upload
    deleting:<sha256>  set while a blob is being deleted from the storage
    idempotency:<h> hash: digest of the body, id of the job, until when (ms) its request is at work on it
    keys            hash: API keys by id, as JSON with their digests
    pass:<sha256>   job and API key of a browser's pass; goes by itself
    bucket:<name>   hash: what is left of a rate or quota

Every change reads the state, decides in Python, and writes under the version read; a change that came between
makes it decide again. A write that is sent twice, because the connection broke before its answer came, is
told by its `write` and done once. Times are the Redis server's own, so the workers' clocks need not agree.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from redis import Redis

from loramend.contracts.errors import LoramendError, RequestError
from loramend.contracts.job import TERMINAL, JobStatus
from service.jobs.records import JobRecord

PREFIX = "loramend:"
# Progress may fill an events stream; the newest this many are kept, among them always the last status.
MAX_EVENTS = 5000
ACTIVE: tuple[JobStatus, ...] = ("queued", "running")
_MAX_CONFLICTS = 200


@dataclass(frozen=True)
class State:
    """A job as read: `now` is the server's time of reading; times are in ms.

    worker       who holds the lease, "" for nobody
    sends        how many times a message was sent for the current wait
    due          when the reaper must look: end of the lease, or when to send the message again; 0 never
    hook_sends   how many times a message was sent for the webhook's next attempt; -1 while a worker is at one
    hook_due     when the reaper must look at the webhook; 0 never
    """

    record: JobRecord
    version: int
    now: int
    fence: int = 0
    worker: str = ""
    lease_until: int = 0
    sends: int = 0
    due: int = 0
    hook_sends: int = 0
    hook_due: int = 0

    @property
    def leased(self) -> bool:
        """A worker holds the lease and it has not run out."""
        return bool(self.worker) and self.lease_until > self.now


@dataclass(frozen=True)
class Event:
    """What a change tells."""

    type: Literal["status", "progress", "webhook"]
    data: dict[str, Any]


Change = tuple[State, Event | None]

_COMPARE_AND_SET = """
local job, events, token, claim = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local expected, prefix, change = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
if redis.call('HGET', job, 'write') == change.write then return 1 end
if (redis.call('HGET', job, 'version') or '') ~= expected then return 0 end
if claim and redis.call('HGET', claim, 'job') ~= change.id then return -2 end
if change.max_active > 0 then
  local active = 0
  for _, status in ipairs(change.active) do
    active = active + redis.call('ZCARD', change.indexes[#change.indexes] .. 'status:' .. status)
  end
  if active >= change.max_active then return -1 end
end
redis.call('HSET', job, 'write', change.write)
for i = 4, #ARGV, 2 do redis.call('HSET', job, ARGV[i], ARGV[i + 1]) end
if change.old ~= change.status then
  for _, index in ipairs(change.indexes) do
    if change.old ~= '' then redis.call('ZREM', index .. 'status:' .. change.old, change.id) end
    redis.call('ZADD', index .. 'jobs', 0, change.id)
    redis.call('ZADD', index .. 'status:' .. change.status, 0, change.id)
  end
end
if change.due > 0 then
  redis.call('ZADD', prefix .. 'due', change.due, change.id)
else
  redis.call('ZREM', prefix .. 'due', change.id)
end
if change.hook_due > 0 then
  redis.call('ZADD', prefix .. 'outbox', change.hook_due, change.id)
else
  redis.call('ZREM', prefix .. 'outbox', change.id)
end
for _, sha in ipairs(change.keep) do redis.call('ZADD', prefix .. 'blob:' .. sha, '+inf', change.id) end
for _, sha in ipairs(change.drop) do
  redis.call('ZREM', prefix .. 'blob:' .. sha, change.id)
  redis.call('ZADD', prefix .. 'holds', 0, sha)
end
if change.event_type ~= '' then
  redis.call('XADD', events, 'MAXLEN', '~', change.max_events, '*',
             'type', change.event_type, 'data', change.event_data)
end
if change.terminal then redis.call('DEL', token) end
return 1
"""

_DELETE = """
local job, events, token = KEYS[1], KEYS[2], KEYS[3]
local expected, prefix, change = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
if (redis.call('HGET', job, 'version') or '') ~= expected then return false end
redis.call('DEL', job, events, token)
for _, index in ipairs(change.indexes) do
  redis.call('ZREM', index .. 'status:' .. change.old, change.id)
  redis.call('ZREM', index .. 'jobs', change.id)
end
redis.call('ZREM', prefix .. 'due', change.id)
redis.call('ZREM', prefix .. 'outbox', change.id)
local free = {}
for _, sha in ipairs(change.drop) do
  local blob = prefix .. 'blob:' .. sha
  redis.call('ZREM', blob, change.id)
  redis.call('ZREMRANGEBYSCORE', blob, '-inf', change.now)
  if redis.call('EXISTS', blob) == 0 then
    redis.call('SET', prefix .. 'deleting:' .. sha, '1', 'PX', change.deleting_ms)
    redis.call('ZADD', prefix .. 'holds', change.now + change.deleting_ms, sha)
    free[#free + 1] = sha
  end
end
return free
"""


def job_key(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}"


def events_key(job_id: str) -> str:
    return f"{PREFIX}events:{job_id}"


def token_key(job_id: str) -> str:
    return f"{PREFIX}token:{job_id}"


def index_prefixes(owner: str | None) -> list[str]:
    """What the names of the indexes that list a job begin with: everybody's, then its owner's."""
    return [PREFIX, f"{PREFIX}owner:{owner}:"] if owner is not None else [PREFIX]


def too_many(max_active: int) -> RequestError:
    """The refusal of another job."""
    return RequestError(
        "quota_exceeded",
        f"There are {max_active} unfinished jobs of this key's owner, as many as are allowed. "
        "Try again when one has ended.",
    )


def server_ms(redis: "Redis") -> int:
    """The server's time in ms."""
    seconds, microseconds = redis.time()
    return seconds * 1000 + microseconds // 1000


def status_event(record: JobRecord) -> Event:
    """The event that tells a record's status, with the error where there is one."""
    data: dict[str, Any] = {"status": record.status}
    if record.error is not None:
        data["error"] = record.error.model_dump(mode="json")
    return Event("status", data)


class StateTable:
    """Reads and changes states. Raises LoramendError `internal_error` when a change keeps losing races."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._compare_and_set = redis.register_script(_COMPARE_AND_SET)
        self._delete = redis.register_script(_DELETE)

    def read(self, job_id: str) -> State | None:
        """The state now; None where there is no such job."""
        return self.read_many([job_id])[0]

    def read_many(self, job_ids: list[str]) -> list[State | None]:
        """The same for several jobs, in one round trip."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.time()
        for job_id in job_ids:
            pipe.hgetall(job_key(job_id))
        (seconds, microseconds), *rows = pipe.execute()
        now = seconds * 1000 + microseconds // 1000
        return [_parse(row, now) if row else None for row in rows]

    def insert(self, state: State, *, max_active: int = 0, claim: str | None = None) -> bool:
        """Write a new job; False where the id is taken.

        Raises RequestError `quota_exceeded` where its owner has `max_active` unfinished jobs; 0 is no limit.
        Raises RequestError `idempotency_in_flight` where the key `claim` does not name this job.
        """
        return self._write(None, state, status_event(state.record), max_active, claim)

    def change(self, job_id: str, decide: Callable[[State], Change | None]) -> State | None:
        """Apply `decide` to the state until the result is written under the version it was decided on.

        `decide` returns the new state and the event to tell, or None to leave the job as it is. Returns the
        state after the change; None where there is no such job or nothing was changed.
        """
        for _ in range(_MAX_CONFLICTS):
            state = self.read(job_id)
            if state is None:
                return None
            change = decide(state)
            if change is None:
                return None
            new = replace(change[0], version=state.version + 1)
            if self._write(state, new, change[1]):
                return new
        raise LoramendError("internal_error", f"Job {job_id} changes too fast to be written.")

    def delete(self, job_id: str, *, deleting_ms: int) -> list[str] | None:
        """Remove the job with its events and token. Returns the digests of the blobs that nothing refers to
        any more, marked as being deleted for `deleting_ms`; None where there is no such job."""
        for _ in range(_MAX_CONFLICTS):
            state = self.read(job_id)
            if state is None:
                return None
            change = {
                "id": job_id,
                "old": state.record.status,
                "indexes": index_prefixes(state.record.owner),
                "drop": list(state.record.blobs()),
                "now": state.now,
                "deleting_ms": deleting_ms,
            }
            keys = [job_key(job_id), events_key(job_id), token_key(job_id)]
            free = self._delete(keys=keys, args=[str(state.version), PREFIX, json.dumps(change)])
            if free is not None:
                return cast(list[str], free)
        raise LoramendError("internal_error", f"Job {job_id} changes too fast to be deleted.")

    def _write(
        self,
        old: State | None,
        new: State,
        event: Event | None,
        max_active: int = 0,
        claim: str | None = None,
    ) -> bool:
        record = new.record
        before = old.record.blobs() if old else {}
        after = record.blobs()
        terminal = record.status in TERMINAL
        change = {
            "id": record.id,
            "write": uuid.uuid4().hex,
            "old": old.record.status if old else "",
            "status": record.status,
            "indexes": index_prefixes(record.owner),
            "max_active": max_active if record.owner is not None else 0,
            "active": ACTIVE,
            "due": 0 if terminal else new.due,
            "hook_due": new.hook_due,
            "keep": [sha for sha in after if sha not in before],
            "drop": [sha for sha in before if sha not in after],
            "event_type": event.type if event else "",
            "event_data": json.dumps(event.data) if event else "",
            "max_events": MAX_EVENTS,
            "terminal": terminal,
        }
        fields: dict[str, str | int] = {
            "record": record.model_dump_json(),
            "version": new.version,
            "fence": new.fence,
            "worker": new.worker,
            "lease_until": new.lease_until,
            "sends": new.sends,
            "due": new.due,
            "hook_sends": new.hook_sends,
            "hook_due": new.hook_due,
        }
        keys = [job_key(record.id), events_key(record.id), token_key(record.id)]
        if claim is not None:
            keys.append(claim)
        args: list[str | int] = [str(old.version) if old else "", PREFIX, json.dumps(change)]
        for name, value in fields.items():
            args += [name, value]
        written = cast(int, self._compare_and_set(keys=keys, args=args))
        if written == -1:
            raise too_many(max_active)
        if written == -2:
            raise RequestError(
                "idempotency_in_flight",
                "Another request has taken up this Idempotency-Key. Try again shortly.",
            )
        return bool(written)


def _parse(row: dict[str, str], now: int) -> State:
    return State(
        record=JobRecord.model_validate_json(row["record"]),
        version=int(row["version"]),
        now=now,
        fence=int(row["fence"]),
        worker=row["worker"],
        lease_until=int(row["lease_until"]),
        sends=int(row["sends"]),
        due=int(row["due"]),
        # A job of an older version has neither.
        hook_sends=int(row.get("hook_sends", 0)),
        hook_due=int(row.get("hook_due", 0)),
    )
