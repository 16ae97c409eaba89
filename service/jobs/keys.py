"""API keys in Redis: of each its SHA-256 alone.

A key holds 192 random bits, so there is nothing to guess from its digest and no need of a slow hash.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import cast

from redis import Redis

from loramend.contracts.errors import RequestError
from loramend.contracts.keys import KEY, ApiKey, NewApiKey, Scope
from service.jobs.state import PREFIX

_KEYS = f"{PREFIX}keys"
_NO_DIGEST = "0" * 64


class _StoredKey(ApiKey):
    digest: str


class KeyStore:
    """Keys by id. Every call asks the server, so that a revoked key is refused at once."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def create(self, owner: str, scopes: Iterable[Scope]) -> NewApiKey:
        """Make a key. What is returned holds it; the store does not. Raises pydantic's ValidationError for an
        owner or scopes that cannot be."""
        key_id = secrets.token_hex(6)
        made = NewApiKey(
            id=key_id,
            owner=owner,
            scopes=tuple(scopes),
            created_at=datetime.now(UTC),
            key=f"loramend_{key_id}_{secrets.token_hex(24)}",
        )
        stored = _StoredKey(digest=digest_of(made.key), **made.model_dump(exclude={"key"}))
        if not self._redis.hsetnx(_KEYS, key_id, stored.model_dump_json()):
            return self.create(owner, scopes)
        return made

    def all(self) -> list[ApiKey]:
        """Every key, oldest first."""
        rows = cast(dict[str, str], self._redis.hgetall(_KEYS))
        return sorted(map(_public, rows.values()), key=lambda key: (key.created_at, key.id))

    def any(self) -> bool:
        """Whether there is a key."""
        return bool(self._redis.exists(_KEYS))

    def revoke(self, key_id: str) -> None:
        """Forget a key. Its owner's jobs stay. Raises RequestError `not_found`."""
        if not self._redis.hdel(_KEYS, key_id):
            raise RequestError("not_found", f"There is no API key {key_id}.")

    def find(self, text: str) -> ApiKey | None:
        """The key that this text is; None where it is none. The time taken does not depend on how much of the
        key is right."""
        match = KEY.fullmatch(text)
        if match is None:
            return None
        row = cast(str | None, self._redis.hget(_KEYS, match["id"]))
        stored = _StoredKey.model_validate_json(row) if row is not None else None
        same = hmac.compare_digest(digest_of(text), stored.digest if stored else _NO_DIGEST)
        return _public(row) if row is not None and same else None


def digest_of(key: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _public(row: str) -> ApiKey:
    return ApiKey(**_StoredKey.model_validate_json(row).model_dump(exclude={"digest"}))
