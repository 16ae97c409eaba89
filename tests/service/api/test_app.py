"""The application as a whole: routing errors, request IDs, logs, probes, methods, and what it imports."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from service.api.state import Services
from service.app import create_app
from service.jobs.connect import redis_from_url
from service.jobs.keys import KeyStore
from service.logs import JsonFormatter
from service.settings import ServiceSettings
from tests.fixtures.broker import PASSWORD
from tests.serve import free_port
from tests.service.api.answers import problem
from tests.service.api.conftest import connect
from tests.service.api.finished import queued


def test_what_is_not_served(client: TestClient) -> None:
    problem(client.get("/nosuch"), 404, "not_found")
    problem(client.get("/jobs/"), 404, "not_found")
    for method, path, allow in (
        ("PATCH", "/jobs", "GET, HEAD"),
        ("POST", "/jobs/x/adapter", "GET, HEAD"),
        ("POST", "/jobs/x", "GET, HEAD, DELETE"),
        ("GET", "/repair", "POST"),
    ):
        answer = client.request(method, path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allow


def test_a_callers_request_id_is_echoed_where_it_is_harmless(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "a.b-c_1"}).headers["x-request-id"] == "a.b-c_1"
    for bad in ("a b", "x" * 129, "<script>", ""):
        given = client.get("/healthz", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", given)


def test_an_unexpected_error_tells_its_request_id_and_nothing_else(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(services.store, "page", broken)
    answer = client.get("/jobs")
    problem(answer, 500, "internal_error")
    assert "secret detail" not in answer.text
    logged = [record for record in caplog.records if record.name == "service.errors"]
    assert [vars(record)["request_id"] for record in logged] == [answer.headers["x-request-id"]]
    assert "secret detail" in caplog.text


def test_a_broker_that_is_gone(settings: ServiceSettings) -> None:
    gone = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    with connect(create_app(gone)) as client:
        problem(client.get("/jobs"), 503, "broker_unavailable")
        problem(client.get("/jobs/x/events"), 503, "broker_unavailable")
        found = problem(client.get("/readyz"), 503, "not_ready")
        assert [item["pointer"] for item in found["errors"]] == ["/broker"]
        assert client.get("/healthz").json() == {"status": "ok"}


def test_readiness_names_what_is_missing(
    client: TestClient, services: Services, tmp_path: Path, settings: ServiceSettings
) -> None:
    found = problem(client.get("/readyz"), 503, "not_ready")
    assert [item["pointer"] for item in found["errors"]] == ["/worker", "/worker"]
    services.store.heartbeat_worker("spectral+train@one", 60)
    found = problem(client.get("/readyz"), 503, "not_ready")
    assert [item["detail"] for item in found["errors"]] == ["No live worker serves the queue io."]
    services.store.heartbeat_worker("io@two", 60)
    assert client.get("/readyz").status_code == 200
    (tmp_path / "file").write_text("in the way")
    blocked = create_app(settings.model_copy(update={"storage_url": f"file://{tmp_path}/file/blobs"}))
    with connect(blocked) as other:
        found = problem(other.get("/readyz"), 503, "not_ready")
    assert [item["pointer"] for item in found["errors"]] == ["/storage"]


def test_one_log_line_a_request_without_its_query(
    client: TestClient, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    record = queued(services)
    with caplog.at_level(logging.INFO, "service.access"):
        answer = client.get(f"/jobs/{record.id}?token=hf_secret")
    lines = [json.loads(JsonFormatter().format(r)) for r in caplog.records if r.name == "service.access"]
    assert len(lines) == 1
    line = lines[0]
    assert (line["method"], line["path"], line["status"]) == ("GET", f"/jobs/{record.id}", 200)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["bytes"] == len(answer.content)
    assert line["client"] == "127.0.0.1"
    assert 0 < line["seconds"] < 10
    assert "hf_secret" not in caplog.text


def test_metrics(client: TestClient, services: Services) -> None:
    queued(services)
    services.store.heartbeat_worker("one", 60)
    client.get("/jobs/nosuch")
    client.post("/inspect", json={"source": {"hub_id": "a/b"}})
    client.put(f"/uploads/{'0' * 64}", content=b"x")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    for line in (
        'loramend_jobs{status="queued"} 2.0',
        'loramend_jobs{status="failed"} 0.0',
        'loramend_queue_depth{queue="io"} 1.0',
        "loramend_workers 1.0",
        'loramend_http_requests_total{method="GET",route="/jobs/{job_id}",status="404"} 1.0',
        'loramend_http_request_seconds_count{method="POST",route="/inspect"} 1.0',
        "loramend_upload_bytes_total 0.0",
    ):
        assert line in lines


def test_methods(client: TestClient) -> None:
    methods = {method["type"]: method for method in client.get("/methods").json()["methods"]}
    assert {
        "csu",
        "safe_lora",
        "rescale",
        "intruders",
        "restore",
        "shrink",
        "random_subspace",
    } <= methods.keys()
    assert methods["csu"]["needs"] == ["base", "aligned"]
    assert "2405.16833" in methods["safe_lora"]["source"]
    for method in methods.values():
        validator = Draft202012Validator(method["parameters"])
        validator.check_schema(method["parameters"])
        assert validator.is_valid({"type": method["type"]})
        assert not validator.is_valid({"type": method["type"], "nosuch": 1})
        assert method["summary"]


def run_python(code: str) -> str:
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def test_no_torch_is_imported() -> None:
    heavy = "{'torch', 'transformers', 'peft', 'huggingface_hub', 'worker'}"
    modules = "service.app, service.__main__, loramend.adapter.check"
    code = f"import sys, {modules}; print({heavy} & {{name.split('.')[0] for name in sys.modules}})"
    assert run_python(code) == "set()"


def test_nothing_is_connected_or_written_before_it_is_used(tmp_path: Path) -> None:
    settings = ServiceSettings(
        broker_url=f"redis://127.0.0.1:{free_port()}/0", storage_url=f"file://{tmp_path}/blobs"
    )
    assert isinstance(create_app(settings), FastAPI)
    assert list(tmp_path.iterdir()) == []


def start(**env: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "service"], env=os.environ | env, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"LORAMEND_HOST": "0.0.0.0"}, "Refusing to listen on 0.0.0.0 without API keys"),
        ({"LORAMEND_HOST": "::"}, "Refusing to listen on :: without API keys"),
        ({"LORAMEND_PORT": "many"}, "LORAMEND_PORT: "),
        ({"LORAMEND_SECRET_KEY": "notakey"}, "LORAMEND_SECRET_KEY"),
    ],
)
def test_the_process_refuses_wrong_settings_in_one_line(env: dict[str, str], said: str) -> None:
    process = start(**env)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.e2e
def test_other_addresses_need_a_key_in_the_store(broker_url: str, tmp_path: Path) -> None:
    port = free_port()
    env = {
        "LORAMEND_HOST": "0.0.0.0",
        "LORAMEND_PORT": str(port),
        "LORAMEND_BROKER_URL": broker_url,
        "LORAMEND_STORAGE_URL": f"file://{tmp_path}/blobs",
    }
    process = start(**env)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "make one with `loramend keys create OWNER`" in errors
    with redis_from_url(broker_url) as client:
        made = KeyStore(client).create("alice", ["read"])
    process = start(**env)
    try:
        url = f"http://127.0.0.1:{port}"
        assert until_answered(f"{url}/healthz").status_code == 200
        assert httpx2.get(f"{url}/jobs").status_code == 401
        headers = {"Authorization": f"Bearer {made.key}"}
        assert httpx2.get(f"{url}/jobs", headers=headers).status_code == 200
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert made.key not in errors


def until_answered(url: str) -> httpx2.Response:
    """The first answer of a server that is starting."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return httpx2.get(url)
        except httpx2.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.e2e
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_process_serves_until_it_is_told_to_stop(
    broker_url: str, tmp_path: Path, stop: signal.Signals
) -> None:
    port = free_port()
    process = start(
        LORAMEND_PORT=str(port),
        LORAMEND_BROKER_URL=broker_url,
        LORAMEND_STORAGE_URL=f"file://{tmp_path}/blobs",
    )
    assert until_answered(f"http://127.0.0.1:{port}/healthz?token=hf_secret").status_code == 200
    process.send_signal(stop)
    _, errors = process.communicate(timeout=20)
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["path"] for line in lines if line["logger"] == "service.access"] == ["/healthz"]
    assert "hf_secret" not in errors
    assert PASSWORD not in errors
    assert process.returncode in (0, -stop)
