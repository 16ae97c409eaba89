"""Idempotency keys: the same key and body give the same job."""

import hashlib
from typing import cast

from redis import Redis

from loramend.contracts.errors import RequestError
from service.jobs.state import PREFIX, job_key

# A claim whose request died frees the key after the first; a finished one is remembered for the second.
IN_FLIGHT_SECONDS = 600
REMEMBER_SECONDS = 24 * 3600

_CLAIM = """
local key, digest, ttl, prefix = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HMGET', key, 'digest', 'job')
local stale = known[2] and known[2] ~= '' and redis.call('EXISTS', prefix .. 'job:' .. known[2]) == 0
if not known[1] or stale then
  redis.call('HSET', key, 'digest', digest, 'job', '')
  redis.call('EXPIRE', key, ttl)
  return {'claimed', ''}
end
if known[1] ~= digest then return {'reused', ''} end
if known[2] == '' then return {'in_flight', ''} end
return {'known', known[2]}
"""

_RELEASE = """
if redis.call('HGET', KEYS[1], 'job') == '' then redis.call('DEL', KEYS[1]) end
"""


class IdempotencyTable:
    """Claims on keys. Keys are hashed: a client may choose them at any length."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._claim = redis.register_script(_CLAIM)
        self._release = redis.register_script(_RELEASE)

    def claim(self, key: str, digest: str) -> str | None:
        """Claim the key for a body with that digest. Returns the id of the job it already gave, if any.

        Raises RequestError `idempotency_key_reused` for another body, `idempotency_in_flight` while the first
        request is still being worked on.
        """
        args: list[str | int] = [digest, IN_FLIGHT_SECONDS, PREFIX]
        outcome, job_id = cast(list[str], self._claim(keys=[_name(key)], args=args))
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
        return job_id or None

    def job_of(self, key: str, digest: str) -> str | None:
        """The job that this key and body already gave."""
        known, job_id = cast(list[str | None], self._redis.hmget(_name(key), ["digest", "job"]))
        if known != digest or not job_id or not self._redis.exists(job_key(job_id)):
            return None
        return job_id

    def settle(self, key: str, digest: str, job_id: str) -> None:
        """Remember the job that the claimed key gave."""
        pipe = self._redis.pipeline()
        pipe.hset(_name(key), mapping={"digest": digest, "job": job_id})
        pipe.expire(_name(key), REMEMBER_SECONDS)
        pipe.execute()

    def release(self, key: str) -> None:
        """Give up a claim whose request failed; a key that gave a job stays."""
        self._release(keys=[_name(key)], args=[])


def _name(key: str) -> str:
    return f"{PREFIX}idempotency:{hashlib.sha256(key.encode()).hexdigest()}"
