"""How a job's state may change, as pure functions; `service.jobs.store` says who may ask for it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from loramend.contracts.errors import JobError, Problem
from loramend.contracts.job import TERMINAL, JobStatus
from service.jobs.lease import Lease
from service.jobs.records import JobRecord
from service.jobs.state import Event, State, status_event

# Later waits of a job that nobody takes up are not longer than this many doublings.
_MAX_DOUBLINGS = 20


def holds(state: State, lease: Lease) -> bool:
    """Whether the lease is the job's. One that ran out still is until somebody takes it away."""
    return state.worker == lease.worker and state.fence == lease.fence


def with_fields(state: State, fields: dict[str, Any]) -> State:
    """The state with these fields of its record. Raises TypeError for a name that is none."""
    unknown = fields.keys() - JobRecord.model_fields.keys()
    if unknown:
        raise TypeError(f"no such fields: {sorted(unknown)}")
    return replace(state, record=state.record.model_copy(update=fields))


def waiting(state: State, resend_ms: int, *, sends: int = 1) -> State:
    """Without a lease, waiting for a message that is now sent for the `sends`-th time."""
    due = state.now + resend_ms * 2 ** min(sends - 1, _MAX_DOUBLINGS)
    return replace(state, worker="", lease_until=0, sends=sends, due=due)


def ended(state: State, status: JobStatus) -> tuple[State, Event]:
    """At its end, where nothing needs its checkpoints any more, and its webhook is due at once. Raises
    ValueError for a status that ends nothing."""
    if status not in TERMINAL:
        raise ValueError(f"{status} ends no job")
    fields: dict[str, Any] = {"status": status, "finished_at": as_datetime(state.now), "checkpoints": {}}
    state = with_fields(state, fields)
    hook_due = state.now if state.record.webhook is not None else 0
    return replace(state, worker="", lease_until=0, hook_due=hook_due), status_event(state.record)


def lost(state: State, max_attempts: int, resend_ms: int) -> tuple[State, Event]:
    """After its worker died: waiting again; failed when out of attempts, canceled where that was asked."""
    record = state.record
    if record.cancel_requested:
        return ended(state, "canceled")
    if record.attempts >= max_attempts:
        return ended(with_fields(state, {"error": _why_lost(record).problem()}), "failed")
    new = waiting(with_fields(state, {"status": "queued", "progress": None}), resend_ms)
    return new, status_event(new.record)


def set_back(state: State, error: Problem, max_attempts: int, resend_ms: int) -> tuple[State, Event]:
    """After an error that may pass: waiting, the longer the more attempts there were; failed with the error
    when out of attempts, canceled where that was asked."""
    record = state.record
    if record.cancel_requested:
        return ended(state, "canceled")
    if record.attempts >= max_attempts:
        return ended(with_fields(state, {"error": error}), "failed")
    fields = {"status": "queued", "progress": None}
    new = waiting(with_fields(state, fields), resend_ms, sends=record.attempts)
    return new, status_event(new.record)


def _why_lost(record: JobRecord) -> JobError:
    if record.starved:
        return JobError(
            "out_of_memory",
            f"The kernel killed the worker for want of memory while it ran this job ({record.starved} of "
            f"{record.attempts} attempts). Try a smaller model, rank or batch, or a worker with more memory.",
        )
    return JobError(
        "worker_lost",
        f"The worker died while it ran this job, {record.attempts} times; the workers' logs may say why.",
    )


def as_datetime(milliseconds: int) -> datetime:
    """The server's time as a datetime."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
