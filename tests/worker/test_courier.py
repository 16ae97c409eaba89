"""One attempt to deliver a webhook, against real receivers on loopback."""

import json
import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from loramend.contracts.errors import JobError
from loramend.contracts.webhook import JobWebhook
from service.jobs.records import JobRecord
from service.jobs.store import JobStore
from tests.fixtures.receiver import SECRET, is_signed, receiving
from tests.service.jobs.jobs import blob, new_record
from worker.courier import deliver, post
from worker.notice import body_of, headers_of
from worker.process import WorkerProcess
from worker.settings import WorkerSettings
from worker.tools import Tools, open_tools

KEY = SecretStr(Fernet.generate_key().decode())
BODY = b'{"type":"job.failed"}'


@pytest.fixture
def settings(own_settings: WorkerSettings) -> WorkerSettings:
    given = {"webhook_private_hosts": ("127.0.0.1",), "webhook_seconds": 1.0, "secret_key": KEY}
    return own_settings.model_copy(update={**given, "webhook_pause_seconds": 0.01})


def ended(
    tools: Tools, url: str, status: Any = "succeeded", secret: str = SECRET, **fields: Any
) -> JobRecord:
    """A job with a webhook there, whose message was sent."""
    sealed = tools.sealer.seal(SecretStr(secret), "webhooks", "/webhook/secret")
    record = tools.store.create(new_record(webhook=JobWebhook(url=url), webhook_secret=sealed))
    lease = tools.store.acquire(record.id, "worker", 30)
    assert lease is not None
    record = tools.store.finish(lease, status, **fields)
    claim(tools, record)
    return record


def claim(tools: Tools, record: JobRecord) -> None:
    deadline = time.monotonic() + 10
    while record.id not in tools.outbox.claim():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def details(store: JobStore, record: JobRecord) -> list[tuple[str, str]]:
    events = [event.data for event in store.events(record.id) if event.type == "webhook"]
    return [(data["state"], data["detail"]) for data in events]


def test_the_body_is_small_and_the_same_every_time() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    job_id = "0" * 32
    done = new_record(id=job_id, status="succeeded", finished_at=at, report=blob("r"), archive=blob("a"))
    assert json.loads(body_of(done)) == {
        "type": "job.succeeded",
        "timestamp": "2026-01-02T03:04:05Z",
        "data": {
            "job_id": job_id,
            "kind": "repair",
            "status": "succeeded",
            "error": None,
            "links": {
                "job": f"/jobs/{job_id}",
                "report": f"/jobs/{job_id}/report",
                "adapter": f"/jobs/{job_id}/adapter",
            },
        },
    }
    assert body_of(done) == body_of(JobRecord.model_validate_json(done.model_dump_json()))
    error = JobError("worker_lost", "died").problem()
    failed = new_record(id=job_id, status="failed", finished_at=at, error=error)
    assert json.loads(body_of(failed))["type"] == "job.failed"
    assert json.loads(body_of(failed))["data"]["error"] == "worker_lost"
    assert json.loads(body_of(failed))["data"]["links"] == {"job": f"/jobs/{job_id}"}


def test_the_signature_is_the_published_examples() -> None:
    """The one in Standard Webhooks' specification and its libraries' tests."""
    body = b'{"test": 2432232314}'
    secret = SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = headers_of("p5jXN8AQM9LWM0D4loKWxJek", body, secret, 1614265330)
    assert found["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_it_is_delivered_once_and_signed(settings: WorkerSettings) -> None:
    tools, process = open_tools(settings), WorkerProcess(["io"])
    with receiving() as receiver:
        record = ended(tools, receiver.url("/hook?to=me"))
        deliver(record.id, tools, settings, process)
        deliver(record.id, tools, settings, process)
    [request] = receiver.received
    assert request.path == "/hook?to=me"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == f"msg_{record.id}"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 30
    assert is_signed(request)
    assert request.document["data"]["status"] == "succeeded"
    assert details(tools.store, record) == [("delivered", "127.0.0.1 answered 204.")]
    assert process.taken == 2
    assert not process.busy


def test_a_failure_is_tried_again_with_the_same_id(settings: WorkerSettings) -> None:
    tools, process = open_tools(settings), WorkerProcess(["io"])
    with receiving(answers=[500, 429]) as receiver:
        record = ended(tools, receiver.url(), "failed", error=JobError("worker_lost", "died").problem())
        for _ in range(2):
            deliver(record.id, tools, settings, process)
            claim(tools, record)
        deliver(record.id, tools, settings, process)
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 1
    assert len({request.body for request in receiver.received}) == 1
    assert [is_signed(request) for request in receiver.received] == [True] * 3
    assert [state for state, _ in details(tools.store, record)] == ["waiting", "waiting", "delivered"]


def test_a_receiver_may_want_no_more(settings: WorkerSettings) -> None:
    tools = open_tools(settings)
    with receiving(answers=[410]) as receiver:
        record = ended(tools, receiver.url())
        deliver(record.id, tools, settings, WorkerProcess(["io"]))
    assert details(tools.store, record) == [("given_up", "127.0.0.1 answered 410.")]


def test_a_secret_that_cannot_be_read_gives_it_up(settings: WorkerSettings) -> None:
    other = settings.model_copy(update={"secret_key": SecretStr(Fernet.generate_key().decode())})
    with receiving() as receiver:
        record = ended(open_tools(other), receiver.url())
        tools = open_tools(settings)
        deliver(record.id, tools, settings, WorkerProcess(["io"]))
    assert receiver.received == []
    [(state, detail)] = details(tools.store, record)
    assert (state, "LORAMEND_SECRET_KEY" in detail) == ("given_up", True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "https://127.0.0.1:{port}/"])
def test_a_target_that_is_not_allowed_here_is_not_connected_to(settings: WorkerSettings, url: str) -> None:
    """Though the API took it, under other settings."""
    strict = settings.model_copy(update={"webhook_private_hosts": ()})
    tools = open_tools(strict)
    with receiving() as receiver:
        record = ended(tools, url.format(port=receiver.port))
        deliver(record.id, tools, strict, WorkerProcess(["io"]))
    assert receiver.received == []
    [(state, detail)] = details(tools.store, record)
    assert (state, detail.startswith("webhook_not_allowed: ")) == ("given_up", True)


def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lookup; what it says is what counts."""
    asked: list[str] = []

    def resolve(host: str, port: int | None, **options: Any) -> list[Any]:
        if options.get("flags"):  # whether it is written as an address
            raise socket.gaierror
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    def connect(*_: Any, **__: Any) -> socket.socket:
        raise AssertionError("connected")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    outcome = post("https://inside.example.org/", BODY, {}, settings)
    assert outcome.final
    assert outcome.detail == "webhook_not_allowed: inside.example.org is not at a public address."
    assert asked == ["inside.example.org"]


def test_redirects_are_not_followed(settings: WorkerSettings) -> None:
    with receiving() as there, receiving(answers=[302, 307, 308]) as receiver:
        receiver.headers["Location"] = there.url()
        outcomes = [post(receiver.url(), BODY, {}, settings) for _ in range(3)]
    assert [outcome.detail[-4:] for outcome in outcomes] == ["302.", "307.", "308."]
    assert not any(outcome.delivered or outcome.final for outcome in outcomes)
    assert there.received == []


def test_no_proxy_is_asked(settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        assert post(receiver.url(), BODY, {}, settings).delivered
    assert (len(proxy.received), len(receiver.received)) == (0, 1)


def test_a_receiver_that_is_away_or_talks_nonsense(settings: WorkerSettings) -> None:
    with receiving() as receiver:
        pass
    assert post(receiver.url(), BODY, {}, settings).detail == "127.0.0.1 could not be reached."
    found = talking(settings, lambda connection: connection.sendall(b"SSH-2.0-x\r\n\r\n"))
    assert found == "127.0.0.1 did not answer as a web server does."
    assert post("https://" + "a" * 70 + ".org/", BODY, {}, settings).detail.endswith("could not be reached.")


def test_an_answer_takes_no_longer_than_it_may_and_is_not_read_whole(settings: WorkerSettings) -> None:
    """A byte now and then resets no clock; a body without end is left alone."""

    def drip(connection: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    def drip_body(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        drip(connection)

    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 1 << 28:
            sent += connection.send(bytes(1 << 16))

    def headers(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X: " + b"y" * 1000 + b"\r\n")

    begun = time.monotonic()
    assert talking(settings, lambda _: time.sleep(3)) == "127.0.0.1 did not answer within 1 s."
    assert talking(settings, drip) == "127.0.0.1 did not answer within 1 s."
    assert talking(settings, drip_body) == "127.0.0.1 answered 200."
    assert talking(settings, flood) == "127.0.0.1 answered 200."
    assert talking(settings, headers) == "127.0.0.1 did not answer as a web server does."
    assert time.monotonic() - begun < 8
    assert sent < 1 << 26


def test_certificates_are_checked(
    settings: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(make_certificate(tmp_path))
    with receiving(tls=server) as receiver:
        outcome = post(receiver.url(scheme="https"), BODY, {}, settings)
        assert outcome.detail == "127.0.0.1 gave no TLS connection that can be trusted."
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
        assert post(receiver.url(scheme="https"), BODY, {}, settings).delivered
        named = settings.model_copy(update={"webhook_private_hosts": ("localhost",)})
        wrong = post(receiver.url(scheme="https", host="localhost"), BODY, {}, named)
    assert wrong.detail == "localhost gave no TLS connection that can be trusted."
    assert len(receiver.received) == 1


def talking(settings: WorkerSettings, answer: Callable[[socket.socket], object]) -> str:
    """What comes of a POST to a server that answers in that way."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                try:
                    answer(connection)
                except OSError:
                    return

        thread = Thread(target=serve, daemon=True)
        thread.start()
        detail = post(f"http://127.0.0.1:{listening.getsockname()[1]}/", BODY, {}, settings).detail
        thread.join()
        return detail


def make_certificate(folder: Path) -> Path:
    """A certificate of 127.0.0.1, its own issuer, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
