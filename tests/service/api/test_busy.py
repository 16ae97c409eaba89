"""Clients that are many, or slow, keep nobody else from being answered."""

import hashlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.api import submit, uploads
from service.settings import ServiceSettings
from tests.service.api.answers import problem
from tests.service.api.conftest import Running
from tests.service.api.conftest import received as left_behind
from tests.service.api.test_uploads import begin, chunk, files_in, wait_until

pytestmark = pytest.mark.e2e

CONTENT = b"some content"
UPLOAD = f"PUT /uploads/{hashlib.sha256(CONTENT).hexdigest()}"
FORM = "POST /repair", "Content-Type: multipart/form-data; boundary=b"
FORM_BEGINS = b'--b\r\nContent-Disposition: form-data; name="adapter"; filename="a"\r\n\r\n'


@pytest.fixture
def settings(settings: ServiceSettings, request: pytest.FixtureRequest) -> ServiceSettings:
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest.mark.parametrize("settings", [{"max_concurrent_requests": 2}], indirect=True)
def test_one_request_too_many_is_told_when_to_come_again(running: Running, tmp_path: Path) -> None:
    with begin(running, UPLOAD) as one, begin(running, UPLOAD) as two:
        for connection in (one, two):
            connection.sendall(chunk(CONTENT))
        wait_until(lambda: len(files_in(tmp_path / "blobs")) == 2)
        answer = httpx2.get(f"{running.url}/jobs")
        problem(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) > 0
        assert httpx2.get(f"{running.url}/healthz").status_code == 200
        one.sendall(chunk(b""))
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 201")
        assert httpx2.get(f"{running.url}/jobs").status_code == 200


@pytest.mark.parametrize("settings", [{"max_concurrent_uploads": 1}], indirect=True)
def test_an_upload_that_finds_no_place_is_told_so(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_PLACE_SECONDS", 0.2)
    with begin(running, UPLOAD) as one:
        one.sendall(chunk(CONTENT))
        wait_until(lambda: len(files_in(tmp_path / "blobs")) == 1)
        answer = httpx2.put(f"{running.url}{UPLOAD.removeprefix('PUT ')}", content=CONTENT)
        problem(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) > 0
        one.sendall(chunk(b""))
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 201")
    answer = httpx2.put(f"{running.url}{UPLOAD.removeprefix('PUT ')}", content=CONTENT)
    assert answer.status_code == 200, "the place is free again"


@pytest.mark.parametrize("settings", [{"body_seconds": 0.2}], indirect=True)
@pytest.mark.parametrize("call", [(UPLOAD,), FORM, ("POST /repair", "Content-Type: application/json")])
def test_a_body_that_stops_coming_is_given_up(
    running: Running, tmp_path: Path, call: tuple[str, ...]
) -> None:
    with begin(running, *call) as connection:
        connection.sendall(chunk(b"--"))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.load(answer)["code"]) == (408, "request_timeout")
    wait_until(lambda: files_in(tmp_path / "blobs") == [] and left_behind(tmp_path) == [])


@pytest.mark.parametrize(
    "settings",
    [{"body_seconds": 0.5, "body_bytes_per_second": 1000, "max_concurrent_uploads": 1}],
    indirect=True,
)
@pytest.mark.parametrize(("call", "first"), [((UPLOAD,), b""), (FORM, FORM_BEGINS)])
def test_a_body_that_drips_gives_its_place_up(
    running: Running, tmp_path: Path, call: tuple[str, ...], first: bytes
) -> None:
    """However short its pauses are, and though its first piece was a long one."""
    fast = hashlib.sha256(CONTENT * 10_000).hexdigest()
    with begin(running, *call) as connection:
        connection.sendall(chunk(first + b"-" * 4000))
        stopped, sent = threading.Event(), 0

        def drip() -> None:
            nonlocal sent
            with suppress(OSError):  # the server has had enough
                while not stopped.wait(0.02):
                    connection.sendall(chunk(b"-"))
                    sent += 1

        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        stopped.set()
        dripping.join()
        assert (answer.status, json.load(answer)["code"]) == (408, "request_timeout")
    assert sent > 10
    again = httpx2.put(f"{running.url}/uploads/{fast}", content=CONTENT * 10_000)
    assert again.status_code == 201, "the place is free, and whoever is quick is not bothered"
    wait_until(lambda: len(files_in(tmp_path / "blobs")) == 1 and left_behind(tmp_path) == [])


@pytest.mark.parametrize(
    "settings", [{"body_seconds": 0.5, "body_bytes_per_second": rate} for rate in (0, 100)], indirect=True
)
def test_a_body_that_keeps_the_rate_may_take_long(running: Running) -> None:
    content = b"-" * (9 if running.services.settings.body_bytes_per_second == 0 else 900)
    upload = f"PUT /uploads/{hashlib.sha256(content).hexdigest()}"
    step = len(content) // 9
    with begin(running, upload) as connection:
        for start in range(0, len(content), step):
            connection.sendall(chunk(content[start : start + step]))
            time.sleep(0.2)
        connection.sendall(chunk(b""))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 201")


@pytest.mark.parametrize("settings", [{"body_seconds": 0.3}], indirect=True)
def test_the_servers_own_time_is_not_the_bodys(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk makes no client slow."""
    put_stream = running.services.storage.put_stream

    def slow(chunks: Iterator[bytes], **options: Any) -> Any:
        def late() -> Iterator[bytes]:
            for piece in chunks:
                time.sleep(0.1)
                yield piece

        return put_stream(late(), **options)

    monkeypatch.setattr(running.services.storage, "put_stream", slow)
    content = bytes(1 << 20)
    answer = httpx2.put(f"{running.url}/uploads/{hashlib.sha256(content).hexdigest()}", content=content)
    assert answer.status_code == 201


@pytest.mark.parametrize("settings", [{"body_seconds": 1, "wait_seconds": 2}], indirect=True)
def test_a_long_answer_is_no_slow_body(running: Running) -> None:
    answer = httpx2.post(
        f"{running.url}/repair",
        json={"source": {"hub_id": "a/b"}, "steps": [{"type": "shrink", "factor": 0.5}]},
        headers={"Prefer": "wait=2"},
    )
    assert answer.status_code == 202, answer.text


def test_a_long_document_does_not_hold_up_others(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long with it is done in a thread of its own."""
    began: list[float] = []
    validated = submit._validated

    def slow(*arguments: Any) -> object:
        began.append(time.monotonic())
        wait_until(lambda: len(began) > 1)
        return validated(*arguments)

    monkeypatch.setattr(submit, "_validated", slow)
    with begin(running, "POST /repair", "Content-Type: application/json") as connection:
        connection.sendall(chunk(b"{}") + chunk(b""))
        wait_until(lambda: len(began) == 1)
        assert httpx2.get(f"{running.url}/jobs").status_code == 200
        began.append(0)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 422")
