"""The application on a real broker and a folder of its own, in process and behind a real server."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography.fernet import Fernet
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.__main__ import Server
from service.api.state import Services
from service.app import create_app
from service.settings import ServiceSettings

PEER = ("127.0.0.1", 50000)


@pytest.fixture
def settings(broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    """Settings without API keys; received files go to a folder of the test's own."""
    received = tmp_path / "received"
    received.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(received))
    return ServiceSettings(
        broker_url=broker_url,
        storage_url=f"file://{tmp_path}/blobs",
        secret_key=Fernet.generate_key().decode(),
        model_roots=(tmp_path / "models",),
        max_upload_bytes=1 << 20,
        max_document_bytes=1 << 16,
        keepalive_seconds=0.2,
    )


@pytest.fixture
def app(settings: ServiceSettings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def services(app: FastAPI) -> Services:
    found: Services = app.state.services
    return found


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with connect(app) as client:
        yield client


def connect(app: FastAPI, **options: Any) -> TestClient:
    """A client on this machine; unexpected errors are answers to it, as they are to real clients."""
    given: dict[str, Any] = {"base_url": "http://127.0.0.1", "client": PEER, "raise_server_exceptions": False}
    return TestClient(app, **(given | options))


def received(tmp_path: Path) -> list[Path]:
    """What requests have left behind."""
    return list((tmp_path / "received").glob("loramend-api-*/*"))


@dataclass(frozen=True)
class Running:
    """A real server and what its endpoints work with."""

    url: str
    services: Services
    server: Server
    thread: threading.Thread

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=20)
        assert not self.thread.is_alive()


def run_server(app: FastAPI) -> Running:
    """Serve on a free loopback port, in a thread."""
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    server = Server(config, app.state.services)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    return Running(f"http://127.0.0.1:{port}", app.state.services, server, thread)


@pytest.fixture
def running(app: FastAPI) -> Iterator[Running]:
    running = run_server(app)
    yield running
    running.stop()
