"""`loramend keys` as its user meets it: processes of its own, on the real broker."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import typer

from loramend.cli.datafolder import noted_broker, open_data_folder
from loramend.cli.keys import Scope, seconds_of
from loramend.contracts.keys import KEY, SCOPES
from service.jobs.connect import redis_from_url
from service.jobs.keys import KeyStore
from tests.fixtures.broker import PASSWORD
from tests.serve import free_port

COMMAND = (sys.executable, "-m", "loramend.cli.main", "keys")


def keys(*arguments: str, **env: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LORAMEND_")}
    done = subprocess.run(
        [*COMMAND, *arguments], env=clean | env, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_the_scopes_are_the_contracts() -> None:
    assert tuple(Scope) == SCOPES


@pytest.mark.e2e
def test_create_list_and_revoke_in_the_broker_of_the_environment(broker_url: str) -> None:
    env = {"LORAMEND_BROKER_URL": broker_url}
    code, out, err = keys("create", "alice", **env)
    assert code == 0
    key = out.removesuffix("\n")
    match = KEY.fullmatch(key)
    assert match
    assert match["id"] in err
    assert key not in err
    _, out, _ = keys("create", "bob", "--scope", "admin", "--scope", "read", **env)
    with redis_from_url(broker_url) as client:
        found, other = KeyStore(client).find(key), KeyStore(client).find(out.strip())
    assert found is not None
    assert other is not None
    assert (found.owner, found.scopes) == ("alice", ("read", "submit"))
    assert (other.owner, other.scopes) == ("bob", ("read", "admin"))

    code, out, err = keys("list", **env)
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first.split()[:2] == [found.id, "alice"]
    assert first.endswith("read, submit")
    assert second.split()[:2] == [other.id, "bob"]
    assert key[-48:] not in out
    _, out, _ = keys("list", "--json", **env)
    assert [listed["id"] for listed in json.loads(out)["keys"]] == [found.id, other.id]

    assert keys("revoke", found.id, **env) == (0, f"Revoked key {found.id}.\n", "")
    code, out, err = keys("revoke", found.id, **env)
    assert (code, out) == (1, "")
    assert err == f"loramend: not_found: There is no API key {found.id}.\n"
    with redis_from_url(broker_url) as client:
        assert KeyStore(client).find(key) is None


@pytest.mark.e2e
def test_each_prints_json_and_nothing_else(broker_url: str) -> None:
    env = {"LORAMEND_BROKER_URL": broker_url}
    code, out, err = keys("create", "alice", "--json", **env)
    made = json.loads(out)
    assert (code, err, made["owner"]) == (0, "", "alice")
    assert KEY.fullmatch(made["key"])
    code, out, err = keys("revoke", made["id"], "--json", **env)
    assert (code, err, json.loads(out)) == (0, "", {"revoked": made["id"]})


@pytest.mark.e2e
def test_a_key_that_expires_is_listed_with_when(broker_url: str) -> None:
    env = {"LORAMEND_BROKER_URL": broker_url}
    code, out, err = keys("create", "alice", "--expires", "30d", **env)
    assert code == 0
    with redis_from_url(broker_url) as client:
        store = KeyStore(client)
        found = store.find(out.strip())
        store.create("bob", ["read"], timedelta(seconds=-1))
    assert found is not None
    assert found.expires_at == found.created_at + timedelta(days=30)
    when = f"expires {found.expires_at:%Y-%m-%d %H:%M} UTC"
    assert when in err
    _, out, _ = keys("list", **env)
    first, second = out.splitlines()
    assert when in first
    assert "expired " in second
    assert first.index("read, submit") == second.index("read"), "columns"


@pytest.mark.parametrize("time", ["30", "d", "0d", "-1d", "1y", "999999w", "1.5h", ""])
def test_a_time_that_is_none_is_a_wrong_usage(time: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 90m, 12h, 30d or 8w"):
        seconds_of(time)


def test_times() -> None:
    assert [seconds_of(text) for text in ("90m", "12h", "30d", "8w")] == [5400, 43200, 2592000, 4838400]


@pytest.mark.e2e
@pytest.mark.parametrize("owner", ["a b", "-x", "", "ä"])
def test_an_owner_is_a_plain_name(broker_url: str, owner: str) -> None:
    code, out, err = keys("create", "--", owner, LORAMEND_BROKER_URL=broker_url)
    assert (code, out) == (1, "")
    assert err.startswith("loramend: request_invalid: An owner's name must fit ")
    assert err.count("\n") == 1


@pytest.mark.e2e
def test_a_folder_that_nobody_serves_keeps_its_keys(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    code, out, _ = keys("create", "alice", *data)
    assert code == 0
    code, listed, _ = keys("list", *data)
    assert listed.split()[1] == "alice"
    assert noted_broker(tmp_path / "data") is None
    assert not (tmp_path / "data" / "valkey" / "valkey.sock").exists()
    secret = out.strip().rpartition("_")[2].encode()
    for file in (tmp_path / "data").rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes()
    code, listed, err = keys("list", "--data", str(tmp_path / "other"))
    assert (code, listed) == (0, "")
    assert err.startswith("There are no keys")


@pytest.mark.e2e
def test_a_job_store_that_does_not_answer() -> None:
    code, out, err = keys("list", LORAMEND_BROKER_URL=f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0")
    assert (code, out) == (1, "")
    assert err.startswith("loramend: broker_unavailable: ")
    assert err.count("\n") == 1
    assert PASSWORD not in err
    code, _, err = keys("list", LORAMEND_BROKER_URL="nonsense://")
    assert code == 1
    assert err.startswith("loramend: process_failed: ")
    assert err.count("\n") == 1


def test_a_brokers_url_is_read_while_its_server_lives_and_by_its_owner_alone(tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert noted_broker(root) is None
    with open_data_folder(root) as folder:
        assert noted_broker(root) is None, "it has said nothing yet"
        folder.note_holder("http://127.0.0.1:1", "redis://broker")
        assert noted_broker(root) == "redis://broker"
        assert (root / "serve.lock").stat().st_mode & 0o077 == 0
        assert root.stat().st_mode & 0o077 == 0
    assert noted_broker(root) is None
