import hashlib
import socket
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient

from service.api.state import Services
from service.settings import ServiceSettings
from tests.service.api.answers import problem
from tests.service.api.conftest import Running, received

CONTENT = b"an adapter" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def test_an_upload_is_stored_once(client: TestClient, services: Services, tmp_path: Path) -> None:
    first = client.put(f"/uploads/{DIGEST}", content=CONTENT)
    assert first.status_code == 201
    assert first.headers["location"] == f"/uploads/{DIGEST}"
    assert first.json() == {"sha256": DIGEST, "size": len(CONTENT), "kept_seconds": 86400}
    assert client.put(f"/uploads/{DIGEST}", content=CONTENT).status_code == 200
    ref = services.storage.exists(DIGEST)
    assert ref is not None
    assert b"".join(services.storage.open(ref)) == CONTENT
    assert services.store.blobs.holders(DIGEST) == ["upload"]
    assert received(tmp_path) == []


def test_another_digest_is_refused_and_nothing_kept(
    client: TestClient, services: Services, tmp_path: Path
) -> None:
    other = "0" * 64
    found = problem(client.put(f"/uploads/{other}", content=CONTENT), 409, "digest_mismatch")
    assert DIGEST in found["detail"]
    assert services.storage.exists(other) is None
    assert services.storage.exists(DIGEST) is None
    assert files_in(tmp_path / "blobs") == []


@pytest.mark.parametrize("digest", ["abc", "A" * 64, "0" * 63 + "g"])
def test_a_digest_is_64_hex_digits(client: TestClient, digest: str) -> None:
    found = problem(client.put(f"/uploads/{digest}", content=CONTENT), 422, "request_invalid")
    assert found["errors"][0]["pointer"] == "/path/sha256"


def test_a_content_length_over_the_cap(client: TestClient, settings: ServiceSettings) -> None:
    content = bytes(settings.max_upload_bytes + 1)
    digest = hashlib.sha256(content).hexdigest()
    problem(client.put(f"/uploads/{digest}", content=content), 413, "payload_too_large")


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def begin(running: Running, path: str, *headers: str) -> socket.socket:
    """A connection on which a chunked request has begun."""
    host, port = running.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    lines = [*headers, f"Host: {host}", "Transfer-Encoding: chunked", "", ""]
    connection.sendall("\r\n".join([f"{path} HTTP/1.1", *lines]).encode())
    return connection


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("path", "headers", "first"),
    [
        (f"PUT /uploads/{DIGEST}", [], b""),
        (
            "POST /repair",
            ["Content-Type: multipart/form-data; boundary=b"],
            b'--b\r\nContent-Disposition: form-data; name="adapter"; filename="a"\r\n\r\n',
        ),
    ],
)
def test_the_cap_holds_while_a_body_of_unknown_length_comes(
    running: Running, settings: ServiceSettings, tmp_path: Path, path: str, headers: list[str], first: bytes
) -> None:
    """The answer comes although the body has not ended."""
    with begin(running, path, *headers) as connection:
        connection.sendall(chunk(first + bytes(settings.max_upload_bytes + 1)))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413")
    assert files_in(tmp_path / "blobs") == []
    assert received(tmp_path) == []


@pytest.mark.e2e
def test_an_upload_cut_short_leaves_nothing(
    running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "service"):
        with begin(running, f"PUT /uploads/{DIGEST}") as connection:
            connection.sendall(chunk(CONTENT[:100]))
            wait_until(lambda: files_in(tmp_path / "blobs") != [])
        wait_until(lambda: files_in(tmp_path / "blobs") == [])
        wait_until(lambda: "service.access" in {record.name for record in caplog.records})
    assert {record.name for record in caplog.records} == {"service.access"}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.e2e
def test_memory_does_not_grow_with_the_upload(running: Running, settings: ServiceSettings) -> None:
    object.__setattr__(settings, "max_upload_bytes", 1 << 30)
    size = 64 << 20
    piece = bytes(1 << 16)
    digest = hashlib.sha256()
    for _ in range(size // len(piece)):
        digest.update(piece)
    tracemalloc.start()
    try:
        answer = httpx2.put(
            f"{running.url}/uploads/{digest.hexdigest()}",
            content=(piece for _ in range(size // len(piece))),
            timeout=60,
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 201, answer.text
    assert peak < 8 << 20
