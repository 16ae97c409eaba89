"""Token buckets: how much a client may still ask for, kept where all servers see it."""

import math
from dataclasses import dataclass
from typing import cast

from redis import Redis

from service.jobs.state import PREFIX

# A bucket that is not there is full; one that has filled up again is dropped.
_TAKE = """
local per_ms, most, need, amount = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = most
if held[1] then
  tokens = math.min(most, tonumber(held[1]) + math.max(0, now - tonumber(held[2])) * per_ms)
end
if tokens < need then return math.ceil((need - tokens) / per_ms) end
if amount > 0 then
  tokens = tokens - amount
  redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at', now)
  redis.call('PEXPIRE', KEYS[1], math.ceil((most - tokens) / per_ms) + 1000)
end
return 0
"""


@dataclass(frozen=True)
class Rate:
    """`amount` in every `seconds`, and `most` of it at once. An amount of 0 stands for no limit."""

    amount: float
    seconds: float
    most: float


class Buckets:
    """Buckets by name, refilled by the Redis server's clock."""

    def __init__(self, redis: "Redis") -> None:
        self._take = redis.register_script(_TAKE)

    def take(self, name: str, rate: Rate) -> int:
        """Take 1. Returns 0, or after how many seconds there will be one, and takes nothing."""
        return self._ask(name, rate, need=1, amount=1)

    def wait(self, name: str, rate: Rate) -> int:
        """After how many seconds there will be something to take; 0 where there is."""
        return self._ask(name, rate, need=min(1, rate.most), amount=0)

    def charge(self, name: str, rate: Rate, amount: float) -> None:
        """Take what was used already, be it more than there is: the debt has to be refilled first."""
        self._ask(name, rate, need=-math.inf, amount=amount)

    def _ask(self, name: str, rate: Rate, *, need: float, amount: float) -> int:
        if not rate.amount:
            return 0
        per_ms = rate.amount / rate.seconds / 1000
        args = [repr(per_ms), repr(rate.most), repr(need if math.isfinite(need) else -1e300), repr(amount)]
        milliseconds = cast(int, self._take(keys=[f"{PREFIX}bucket:{name}"], args=args))
        return math.ceil(milliseconds / 1000)
