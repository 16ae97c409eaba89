"""Who refers to which blob, so that a blob shared by two jobs outlives the first of them.

The order that keeps this safe: hold a digest, then put the blob, then name it in a job's record. A blob that
is being deleted cannot be held until it is gone, and is then written anew.
"""

import time
from collections.abc import Iterable
from typing import cast

from redis import Redis

from loramend.contracts.errors import LoramendError
from service.jobs.state import PREFIX, server_ms
from service.jobs.storage import Storage

# How long one process may take to delete blobs before another may try again.
DELETING_MS = 60_000
_HOLD_RETRY_SECONDS = 10.0
_SWEEP_AT_ONCE = 100

_HOLD = """
local prefix, holder, seconds = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local till = time[1] * 1000 + math.floor(time[2] / 1000) + math.floor(seconds * 1000)
for i = 4, #ARGV do
  if redis.call('EXISTS', prefix .. 'deleting:' .. ARGV[i]) == 1 then return 0 end
end
for i = 4, #ARGV do
  redis.call('ZADD', prefix .. 'blob:' .. ARGV[i], 'GT', till, holder)
  redis.call('ZADD', prefix .. 'holds', 'LT', till, ARGV[i])
end
return 1
"""

_SWEEP = """
local prefix, limit, deleting_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local free = {}
local due = redis.call('ZRANGEBYSCORE', prefix .. 'holds', '-inf', now, 'LIMIT', 0, limit)
for _, sha in ipairs(due) do
  local blob = prefix .. 'blob:' .. sha
  redis.call('ZREMRANGEBYSCORE', blob, '-inf', now)
  local first = redis.call('ZRANGE', blob, 0, 0, 'WITHSCORES')
  if #first == 0 then
    redis.call('SET', prefix .. 'deleting:' .. sha, '1', 'PX', deleting_ms)
    redis.call('ZADD', prefix .. 'holds', now + deleting_ms, sha)
    free[#free + 1] = sha
  elseif first[2] == 'inf' then
    redis.call('ZREM', prefix .. 'holds', sha)
  else
    redis.call('ZADD', prefix .. 'holds', first[2], sha)
  end
end
return {#due, free}
"""

_FREE_UPLOAD = """
local prefix, sha, till, deleting_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local blob = prefix .. 'blob:' .. sha
local held = redis.call('ZRANGE', blob, 0, -1, 'WITHSCORES')
if #held ~= 2 or held[1] ~= 'upload' or tonumber(held[2]) > till then return 0 end
local time = redis.call('TIME')
redis.call('DEL', blob)
redis.call('SET', prefix .. 'deleting:' .. sha, '1', 'PX', deleting_ms)
redis.call('ZADD', prefix .. 'holds', time[1] * 1000 + deleting_ms, sha)
return 1
"""


class BlobTable:
    """References to blobs."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._hold = redis.register_script(_HOLD)
        self._sweep = redis.register_script(_SWEEP)
        self._free_upload = redis.register_script(_FREE_UPLOAD)

    def hold(self, digests: Iterable[str], holder: str, seconds: float) -> None:
        """Keep these blobs for `holder` (a job's id, or "upload") for that long, before they are put.

        A job's record keeps the blobs it names for as long as it lives. Raises `storage_unavailable` where a
        deletion of one of them does not come to its end.
        """
        args: list[str | float] = [PREFIX, holder, seconds, *digests]
        deadline = time.monotonic() + _HOLD_RETRY_SECONDS
        while not self._hold(keys=[], args=args):
            if time.monotonic() > deadline:
                raise LoramendError(
                    "storage_unavailable", "The same file is being deleted just now. Try again in a minute."
                )
            time.sleep(0.02)

    def holders(self, digest: str) -> list[str]:
        """Who refers to that blob."""
        now = server_ms(self._redis)
        return cast(list[str], self._redis.zrangebyscore(f"{PREFIX}blob:{digest}", f"({now}", "+inf"))

    def grant(self, digest: str, owner: str, seconds: float) -> None:
        """Let an owner name that upload: one who has shown to have its content."""
        self._redis.set(_grant_key(digest, owner), "1", px=int(seconds * 1000))

    def granted(self, digest: str, owner: str) -> bool:
        """Whether the owner may name it."""
        return bool(self._redis.exists(_grant_key(digest, owner)))

    def delete(self, digests: list[str], storage: Storage) -> None:
        """Delete blobs that were marked as being deleted, and clear the mark."""
        for digest in digests:
            storage.delete(digest)
            pipe = self._redis.pipeline()
            pipe.zrem(f"{PREFIX}holds", digest)
            pipe.delete(f"{PREFIX}deleting:{digest}")
            pipe.execute()

    def sweep(self, storage: Storage) -> list[str]:
        """Delete blobs left behind by holds that ran out or a deletion cut short. Returns their digests."""
        swept: list[str] = []
        seen = _SWEEP_AT_ONCE
        while seen == _SWEEP_AT_ONCE:
            seen, free = cast(
                tuple[int, list[str]], self._sweep(keys=[], args=[PREFIX, _SWEEP_AT_ONCE, DELETING_MS])
            )
            self.delete(free, storage)
            swept += free
        return swept

    def temporary(self) -> list[tuple[str, int]]:
        """The digests that are held for a time, with the ms at which that may be over, first to last."""
        rows = self._redis.zrange(f"{PREFIX}holds", 0, -1, withscores=True)
        return [(digest, int(till)) for digest, till in cast(list[tuple[str, float]], rows)]

    def free_upload(self, digest: str, till: int) -> bool:
        """Let go of an upload before its time, where nothing else refers to it and it is held no longer than
        `till` (ms). It is then marked as being deleted, for `delete`."""
        return bool(self._free_upload(keys=[], args=[PREFIX, digest, till, DELETING_MS]))


def _grant_key(digest: str, owner: str) -> str:
    return f"{PREFIX}upload:{owner}:{digest}"
