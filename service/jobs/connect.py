"""Connections to the Redis server, from the same URLs that Celery takes."""

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import redis
import redis.asyncio

# A blocking read (events) waits less than this.
SOCKET_TIMEOUT = 30.0


def redis_from_url(url: str) -> "redis.Redis":
    """A client for redis://, rediss:// or redis+socket:// URLs; replies are str."""
    options = _socket_options(url)
    if options is None:
        return redis.Redis.from_url(url, **_COMMON)
    return redis.Redis(**options, **_COMMON)


def async_redis_from_url(url: str) -> "redis.asyncio.Redis":
    """The same for asyncio."""
    options = _socket_options(url)
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


def _socket_options(url: str) -> dict[str, Any] | None:
    """redis-py does not know Celery's redis+socket:// form; None where the URL is of another form."""
    parts = urlsplit(url)
    if parts.scheme != "redis+socket":
        return None
    database = parse_qs(parts.query).get("virtual_host", ["0"])[0].lstrip("/")
    return {
        "unix_socket_path": unquote(parts.path),
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "db": int(database or 0),
    }
