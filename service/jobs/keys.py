"""API keys in Redis: of each its SHA-256 alone.

A key holds 192 random bits, so there is nothing to guess from its digest and no need of a slow hash.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import cast

from redis import Redis

from loramend.contracts.errors import RequestError
from loramend.contracts.keys import KEY, ApiKey, NewApiKey, Scope
from service.jobs.state import PREFIX, server_ms
from service.jobs.transitions import as_datetime

_KEYS = f"{PREFIX}keys"
_NO_DIGEST = "0" * 64


class _StoredKey(ApiKey):
    digest: str


class KeyStore:
    """Keys by id. Every call asks the server, so that a revoked key is refused at once; when one expires goes
    by the server's clock."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def create(self, owner: str, scopes: Iterable[Scope], lifetime: timedelta | None = None) -> NewApiKey:
        """Make a key, which lives for ever unless `lifetime` is given. What is returned holds it; the store
        does not. Raises pydantic's ValidationError for an owner or scopes that cannot be."""
        key_id = secrets.token_hex(6)
        now = as_datetime(server_ms(self._redis))
        made = NewApiKey(
            id=key_id,
            owner=owner,
            scopes=tuple(scopes),
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
            key=f"loramend_{key_id}_{secrets.token_hex(24)}",
        )
        stored = _StoredKey(digest=digest_of(made.key), **made.model_dump(exclude={"key"}))
        if not self._redis.hsetnx(_KEYS, key_id, stored.model_dump_json()):
            return self.create(owner, scopes, lifetime)
        return made

    def all(self) -> list[ApiKey]:
        """Every key, oldest first."""
        rows = cast(dict[str, str], self._redis.hgetall(_KEYS))
        stored = map(_StoredKey.model_validate_json, rows.values())
        return sorted(map(_public, stored), key=lambda key: (key.created_at, key.id))

    def any(self) -> bool:
        """Whether there is a key that has not expired."""
        now = as_datetime(server_ms(self._redis))
        return any(not key.expired(now) for key in self.all())

    def revoke(self, key_id: str) -> None:
        """Forget a key. Its owner's jobs stay. Raises RequestError `not_found`."""
        if not self._redis.hdel(_KEYS, key_id):
            raise RequestError("not_found", f"There is no API key {key_id}.")

    def find(self, text: str) -> ApiKey | None:
        """The key that this text is; None where it is none. The time taken does not depend on how much of the
        key is right. Raises RequestError `unauthorized` where it has expired."""
        match = KEY.fullmatch(text)
        if match is None:
            return None
        stored, now = self._read(match["id"])
        same = hmac.compare_digest(digest_of(text), stored.digest if stored else _NO_DIGEST)
        return _living(stored, now) if stored is not None and same else None

    def named(self, key_id: str) -> ApiKey | None:
        """The key with this ID, for whoever has shown to hold it before; None where it was revoked. Raises
        RequestError `unauthorized` where it has expired."""
        stored, now = self._read(key_id)
        return _living(stored, now) if stored is not None else None

    def _read(self, key_id: str) -> tuple[_StoredKey | None, datetime]:
        """The key's entry and the server's time, in one round trip."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hget(_KEYS, key_id)
        pipe.time()
        row, (seconds, microseconds) = pipe.execute()
        stored = _StoredKey.model_validate_json(row) if row is not None else None
        return stored, as_datetime(seconds * 1000 + microseconds // 1000)


def digest_of(key: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _living(stored: _StoredKey, now: datetime) -> ApiKey:
    if stored.expired(now):
        raise RequestError(
            "unauthorized",
            f"This API key expired at {stored.expires_at:%Y-%m-%d %H:%M} UTC. "
            "Have another made with `loramend keys create`.",
        )
    return _public(stored)


def _public(stored: _StoredKey) -> ApiKey:
    return ApiKey(**stored.model_dump(exclude={"digest"}))
