"""Tokens are unreadable at rest and gone when the job ends."""

from collections.abc import Callable
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet
from pydantic import SecretStr

from loramend.contracts.errors import LoramendError
from service.jobs.secrets import Sealer, TokenVault
from service.jobs.store import JobStore
from tests.service.jobs.jobs import new_record

TOKEN = SecretStr("hf_" + "s3cr3t" * 6)


@pytest.fixture
def vault(redis_client: "redis.Redis") -> TokenVault:
    return TokenVault(redis_client, Sealer(SecretStr(Fernet.generate_key().decode())))


def dump(client: "redis.Redis") -> str:
    """Everything the server holds, as text."""
    held = []
    for key in client.scan_iter():
        kind = client.type(key)
        read: dict[str, Callable[[Any], Any]] = {
            "string": client.get,
            "hash": client.hgetall,
            "stream": client.xrange,
            "set": client.smembers,
            "list": lambda name: client.lrange(name, 0, -1),
            "zset": lambda name: client.zrange(name, 0, -1),
        }
        held.append(f"{key} {read[str(kind)](key)}")
    return "\n".join(held)


def test_a_token_is_encrypted_and_expires(vault: TokenVault, redis_client: "redis.Redis") -> None:
    vault.put("job", TOKEN)
    assert vault.get("job") == TOKEN
    assert vault.get("other") is None
    assert TOKEN.get_secret_value() not in dump(redis_client)
    assert 0 < int(str(redis_client.ttl("loramend:token:job"))) <= 7 * 24 * 3600
    vault.delete("job")
    assert vault.get("job") is None


@pytest.mark.parametrize("end", ["succeeded", "failed", "canceled", "canceled while queued", "deleted"])
def test_it_goes_when_the_job_ends(
    end: Any, vault: TokenVault, store: JobStore, redis_client: "redis.Redis"
) -> None:
    record = new_record()
    vault.put(record.id, TOKEN)
    store.create(record)
    assert vault.get(record.id) == TOKEN
    if end == "canceled while queued":
        store.request_cancel(record.id)
    elif end == "deleted":
        store.delete(record.id)
    else:
        lease = store.acquire(record.id, "w", 30)
        assert lease is not None
        assert vault.get(record.id) == TOKEN
        store.finish(lease, end)
    assert vault.get(record.id) is None
    assert "token" not in dump(redis_client)


def test_without_a_key_no_token_is_taken(redis_client: "redis.Redis") -> None:
    with pytest.raises(LoramendError, match="LORAMEND_SECRET_KEY") as refused:
        TokenVault(redis_client, Sealer(None)).put("job", TOKEN)
    assert refused.value.code == "request_invalid"


def test_another_key_cannot_read_it(vault: TokenVault, redis_client: "redis.Redis") -> None:
    vault.put("job", TOKEN)
    for key in (None, SecretStr(Fernet.generate_key().decode())):
        with pytest.raises(LoramendError, match="same LORAMEND_SECRET_KEY") as refused:
            TokenVault(redis_client, Sealer(key)).get("job")
        assert TOKEN.get_secret_value() not in str(refused.value)
