"""Webhooks that are to be delivered: due from the write that ended their job, until one attempt succeeds or
they are given up.

    ended ──> due ──claim──> sent to a worker ──take──> attempt ──settle──> delivered | given up
               ^ ^                 │ (no worker in time)   │  │
               │ └─────────────────┘                       │  └─ failed: due again after a longer wait
               └─ the worker was killed: due after the longest time that an attempt may take

Two attempts never run at a time, unless one takes longer than it may. A message that comes twice finds the
attempt under way, or nothing due.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from redis import Redis

from loramend.contracts.webhook import JobWebhook
from service.jobs.records import JobRecord
from service.jobs.state import PREFIX, Change, Event, State, StateTable, server_ms
from service.jobs.transitions import with_fields

_AT_ONCE = 200
# Later waits for a worker are not longer than this many doublings.
_MAX_DOUBLINGS = 10
# From one attempt to the next the wait grows by this factor.
GROWTH = 4


@dataclass(frozen=True)
class Attempts:
    """How a webhook is tried.

    most    attempts before it is given up
    pause   seconds before the second attempt; before each further one GROWTH times as long
    longest  seconds that one attempt may take: what takes longer was killed
    """

    most: int
    pause: float
    longest: float


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt, in words for the job's owner. `final` is a failure that no further attempt
    would mend."""

    delivered: bool
    detail: str
    final: bool = False


class Outbox:
    """Every change goes through the compare-and-set that all changes of a job go through."""

    def __init__(self, redis: "Redis", attempts: Attempts, *, resend_seconds: float) -> None:
        self._redis = redis
        self._table = StateTable(redis)
        self._attempts = attempts
        self._resend_ms = int(resend_seconds * 1000)

    def claim(self) -> list[str]:
        """The jobs whose webhooks are due: send a message for each. Of several callers one gets a job; where
        no worker takes it up it is due again."""
        now = server_ms(self._redis)
        ids = cast(list[str], self._redis.zrangebyscore(f"{PREFIX}outbox", "-inf", now, 0, _AT_ONCE))

        def decide(state: State) -> Change | None:
            if not 0 < state.hook_due <= state.now:
                return None
            sends = max(0, state.hook_sends)
            wait = self._resend_ms * 2 ** min(sends, _MAX_DOUBLINGS)
            return replace(state, hook_sends=sends + 1, hook_due=state.now + wait), None

        changed = [self._table.change(job_id, decide) for job_id in ids]
        return [state.record.id for state in changed if state is not None]

    def take(self, job_id: str) -> JobRecord | None:
        """Begin an attempt; the record tells which. None where there is none to make now."""

        def decide(state: State) -> Change | None:
            webhook = state.record.webhook
            if webhook is None or not state.hook_due or state.hook_sends < 1:
                return None
            if webhook.attempts >= self._attempts.most:
                return _settled(state, Outcome(False, "The worker was killed at the last attempt."), 0)
            begun = webhook.model_copy(update={"attempts": webhook.attempts + 1})
            until = state.now + int(self._attempts.longest * 1000)
            return replace(with_fields(state, {"webhook": begun}), hook_sends=-1, hook_due=until), None

        taken = self._table.change(job_id, decide)
        return taken.record if taken is not None and taken.hook_due else None

    def settle(self, job_id: str, attempt: int, outcome: Outcome) -> None:
        """Write what came of an attempt, unless that is done, another has begun since or the job is gone."""

        def decide(state: State) -> Change | None:
            webhook = state.record.webhook
            if webhook is None or webhook.attempts != attempt or not state.hook_sends:
                return None
            again = not outcome.delivered and not outcome.final and attempt < self._attempts.most
            wait = self._attempts.pause * GROWTH ** (attempt - 1)
            return _settled(state, outcome, state.now + int(wait * 1000) if again else 0)

        self._table.change(job_id, decide)


def _settled(state: State, outcome: Outcome, due: int) -> tuple[State, Event]:
    """After an attempt: due again then, or for the last time where that is 0."""
    webhook = state.record.webhook
    assert webhook is not None, "only jobs with a webhook have one that is due"
    now: Literal["waiting", "delivered", "given_up"] = (
        "delivered" if outcome.delivered else "waiting" if due else "given_up"
    )
    told = JobWebhook(url=webhook.url, state=now, attempts=webhook.attempts)
    fields: dict[str, Any] = {"webhook": told} if due else {"webhook": told, "webhook_secret": None}
    event = Event("webhook", {"state": now, "attempt": webhook.attempts, "detail": outcome.detail})
    return replace(with_fields(state, fields), hook_sends=0, hook_due=due), event
