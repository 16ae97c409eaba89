"""API keys in the store: found by the key alone, unreadable at rest, gone when revoked."""

import time
from datetime import timedelta

import pytest
import redis
from pydantic import ValidationError

from loramend.contracts.errors import RequestError
from loramend.contracts.keys import KEY
from service.jobs.keys import KeyStore
from tests.service.jobs.test_secrets import dump


@pytest.fixture
def keys(redis_client: "redis.Redis") -> KeyStore:
    return KeyStore(redis_client)


def test_a_key_is_found_until_it_is_revoked(keys: KeyStore) -> None:
    assert not keys.any()
    made = keys.create("alice", ["submit", "read"])
    assert keys.any()
    found = keys.find(made.key)
    assert found is not None
    assert (found.id, found.owner, found.scopes) == (made.id, "alice", ("read", "submit"))
    other = keys.create("bob", ["admin"])
    # Made in one millisecond they may come in either order.
    assert {key.id for key in keys.all()} == {found.id, other.id}
    keys.revoke(made.id)
    assert keys.find(made.key) is None
    assert keys.find(other.key) is not None
    with pytest.raises(RequestError) as refused:
        keys.revoke(made.id)
    assert refused.value.code == "not_found"


def test_the_store_does_not_hold_the_key(keys: KeyStore, redis_client: "redis.Redis") -> None:
    made = keys.create("alice", ["read"])
    secret = made.key.rpartition("_")[2]
    assert secret not in dump(redis_client)
    assert secret not in repr(made)
    assert "key" not in keys.all()[0].model_dump()


def test_what_is_nearly_a_key_is_none(keys: KeyStore) -> None:
    one, two = keys.create("alice", ["read"]), keys.create("bob", ["read"])
    assert KEY.fullmatch(one.key)
    last = "0" if one.key[-1] != "0" else "1"
    crossed = one.key[:22] + two.key[22:]
    nobody = f"loramend_{'0' * 12}_{'0' * 48}"
    for text in (
        "",
        one.key[:-1],
        one.key[:-1] + last,
        one.key + "0",
        one.key.upper(),
        crossed,
        nobody,
        "\udcff",
    ):
        assert keys.find(text) is None


@pytest.mark.parametrize("owner", ["", "a b", "-a", "a:b", "a\0b", "x" * 65, "ä"])
def test_an_owner_is_a_plain_name(keys: KeyStore, owner: str) -> None:
    with pytest.raises(ValidationError):
        keys.create(owner, ["read"])
    with pytest.raises(ValidationError):
        keys.create("alice", [])
    assert not keys.any()


def test_a_key_is_refused_once_it_has_expired(keys: KeyStore) -> None:
    made = keys.create("alice", ["read"], timedelta(seconds=0.05))
    lasting = keys.create("bob", ["read"], timedelta(days=30))
    assert made.expires_at is not None
    time.sleep(0.06)
    with pytest.raises(RequestError, match=r"expired at \d{4}-\d\d-\d\d \d\d:\d\d UTC") as refused:
        keys.find(made.key)
    assert refused.value.code == "unauthorized"
    wrong = made.key[:-1] + ("0" if made.key[-1] != "0" else "1")
    assert keys.find(wrong) is None, "who has not the key is not told that it expired"
    listed = {key.id: key.expires_at for key in keys.all()}
    assert listed == {made.id: made.expires_at, lasting.id: lasting.expires_at}
    found = keys.find(lasting.key)
    assert found is not None
    assert found.expires_at == lasting.expires_at == found.created_at + timedelta(days=30)
    keys.revoke(lasting.id)
    assert not keys.any(), "a service that listens beyond loopback does not start with this one"
