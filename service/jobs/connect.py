"""Connections to the Redis server, from the same URLs that Celery takes."""

from typing import Any

import redis
import redis.asyncio

from loramend.contracts.broker import socket_options

# A blocking read (events) waits less than this.
SOCKET_TIMEOUT = 30.0


def redis_from_url(url: str) -> "redis.Redis":
    """A client for redis://, rediss:// or redis+socket:// URLs; replies are str."""
    options = socket_options(url)
    if options is None:
        return redis.Redis.from_url(url, **_COMMON)
    return redis.Redis(**options, **_COMMON)


def async_redis_from_url(url: str) -> "redis.asyncio.Redis":
    """The same for asyncio."""
    options = socket_options(url)
    if options is None:
        return redis.asyncio.Redis.from_url(url, **_COMMON)
    return redis.asyncio.Redis(**options, **_COMMON)


_COMMON: dict[str, Any] = {
    "decode_responses": True,
    "protocol": 2,
    "socket_timeout": SOCKET_TIMEOUT,
    "socket_connect_timeout": 5.0,
    "health_check_interval": 30,
}
