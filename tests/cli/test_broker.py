"""The embedded broker and the data folder, with the real Valkey."""

import os
from pathlib import Path

import pytest
import redis

from loramend.cli import datafolder
from loramend.cli.broker import Broker, embedded_broker
from loramend.cli.datafolder import open_data_folder
from loramend.cli.errors import CommandError
from loramend.cli.supervisor import Supervisor
from service.jobs.connect import redis_from_url
from tests.cli.test_supervisor import eventually


def start(broker: Broker, logs: Path) -> Supervisor:
    supervisor = Supervisor(logs, os.environ, say=print)
    supervisor.start(broker.program)
    eventually(broker.answers)
    return supervisor


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["data", 'a "quoted" folder \\ größer', "x" * 120])
def test_what_was_written_is_there_after_a_kill_and_a_restart(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    for round_ in range(3):
        with open_data_folder(root) as data, embedded_broker(data) as broker:
            supervisor = start(broker, data.logs)
            with redis_from_url(broker.url) as client:
                assert client.incr("rounds") == round_ + 1
                assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
                assert client.config_get("appendonly") == {"appendonly": "yes"}
            if round_ == 0:
                supervisor.stop_all()
            else:
                supervisor.stop(["valkey"])
        assert not broker.socket.exists()


@pytest.mark.e2e
def test_only_who_has_the_password_gets_in(tmp_path: Path) -> None:
    with open_data_folder(tmp_path / "data") as data, embedded_broker(data) as broker:
        supervisor = start(broker, data.logs)
        try:
            with (
                redis.Redis(unix_socket_path=str(broker.socket)) as stranger,
                pytest.raises(redis.AuthenticationError),
            ):
                stranger.ping()
            assert broker.socket.stat().st_mode & 0o077 == 0
            assert broker.password not in " ".join(broker.program.command)
        finally:
            supervisor.stop_all()


@pytest.mark.e2e
def test_the_folder_stays_locked_while_the_broker_lives(tmp_path: Path) -> None:
    """Even after its server has let go of the lock, as one that was killed does."""
    with open_data_folder(tmp_path / "data") as data, embedded_broker(data) as broker:
        supervisor = start(broker, data.logs)
    try:
        with pytest.raises(CommandError) as caught, open_data_folder(tmp_path / "data"):
            pass
        assert caught.value.code == "data_folder_in_use"
    finally:
        supervisor.stop_all()
    with open_data_folder(tmp_path / "data"):
        pass


def test_two_on_one_folder_are_refused_naming_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datafolder, "_LOCK_SECONDS", 0.2)
    with open_data_folder(tmp_path / "data") as data:
        data.note_holder("http://127.0.0.1:8123")
        with (
            pytest.raises(CommandError, match=rf"process {os.getpid()}, http://127.0.0.1:8123"),
            open_data_folder(tmp_path / "data"),
        ):
            pass


def test_the_secret_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    from cryptography.fernet import Fernet

    with open_data_folder(tmp_path / "data") as data:
        first = data.secret_key()
        assert data.secret_key() == first
        assert (tmp_path / "data" / "secret.key").stat().st_mode & 0o077 == 0
    Fernet(first)
    with open_data_folder(tmp_path / "other") as other:
        assert other.secret_key() != first


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    with open_data_folder(tmp_path / "deep" / "data") as data:
        assert data.root.stat().st_mode & 0o077 == 0
