"""Idempotency keys: the same key and body give the same job."""

import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

from redis import Redis
from redis.exceptions import RedisError

from loramend.contracts.errors import RequestError
from service.jobs.state import PREFIX

_LOG = logging.getLogger("service.idempotency")

# A claim counts as long as its request renews it: one that died with its server is free soon after.
CLAIM_SECONDS = 10
REMEMBER_SECONDS = 24 * 3600

# The job that a request would make is named in its claim. So a request that died between making the job and
# saying so leaves no doubt whether there is one; and a claim that comes again because its answer was lost is
# told by its job.
_CLAIM = """
local key, digest, job, seconds, remember, prefix = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', key, 'digest', 'job', 'until')
if known[1] and known[2] ~= job then
  local made = redis.call('EXISTS', prefix .. 'job:' .. known[2]) == 1
  if made or tonumber(known[3]) > now then
    if known[1] ~= digest then return {'reused', ''} end
    return {made and 'known' or 'in_flight', known[2]}
  end
end
redis.call('HSET', key, 'digest', digest, 'job', job, 'until', now + seconds * 1000)
redis.call('EXPIRE', key, remember)
return {'claimed', job}
"""

_RENEW = """
if redis.call('HGET', KEYS[1], 'job') ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'until', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2] * 1000)
return 1
"""

# After its job was deleted a key is free again, so its claim must not count any longer than it is needed.
_RELEASE = """
if redis.call('HGET', KEYS[1], 'job') ~= ARGV[1] then return end
if redis.call('EXISTS', ARGV[2] .. 'job:' .. ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], 'until', 0)
else
  redis.call('DEL', KEYS[1])
end
"""


class IdempotencyTable:
    """Claims on keys. Keys are hashed: a client may choose them at any length."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._claim = redis.register_script(_CLAIM)
        self._renew = redis.register_script(_RENEW)
        self._release = redis.register_script(_RELEASE)

    @contextmanager
    def claiming(self, key: str, digest: str, job_id: str) -> Iterator[str]:
        """Claim the key for a body with that digest, which is to make the job `job_id`, for as long as the
        block runs. Yields that id, or that of the job which the key already gave.

        Raises RequestError `idempotency_key_reused` for another body, `idempotency_in_flight` while the first
        request is still being worked on.
        """
        args: list[str | int] = [digest, job_id, CLAIM_SECONDS, REMEMBER_SECONDS, PREFIX]
        outcome, known = cast(list[str], self._claim(keys=[claim_key(key)], args=args))
        if outcome == "reused":
            raise RequestError(
                "idempotency_key_reused",
                "This Idempotency-Key came before with another body. Use a new key for a new request.",
            )
        if outcome == "in_flight":
            raise RequestError(
                "idempotency_in_flight",
                "A request with this Idempotency-Key is still being taken in. Try again shortly.",
            )
        if outcome == "known":
            yield known
            return
        ended = threading.Event()
        renewing = threading.Thread(target=self._keep, args=(key, job_id, ended), daemon=True)
        renewing.start()
        try:
            yield job_id
        finally:
            ended.set()
            renewing.join()
            # Where this cannot be written, the claim runs out by itself.
            with suppress(RedisError):
                self._release(keys=[claim_key(key)], args=[job_id, PREFIX])

    def _keep(self, key: str, job_id: str, ended: threading.Event) -> None:
        while not ended.wait(CLAIM_SECONDS / 3):
            try:
                if not self._renew(keys=[claim_key(key)], args=[job_id, CLAIM_SECONDS]):
                    return
            except RedisError as error:
                _LOG.warning("a claim on an idempotency key was not renewed: %s", error)


def claim_key(key: str) -> str:
    """Where the claim on that key is kept: in its field `job`, whose it is."""
    return f"{PREFIX}idempotency:{hashlib.sha256(key.encode()).hexdigest()}"
