"""POST /repair and POST /inspect."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from loramend.contracts.errors import LoramendError
from loramend.contracts.job import TERMINAL
from service.api.state import Services
from service.app import create_app
from service.jobs.queue import queue_key
from service.jobs.records import new_job_id
from service.settings import ServiceSettings
from tests.service.api.adapters import CONFIG, folder, tar_gz, weights, zipped
from tests.service.api.answers import problem
from tests.service.api.conftest import connect, received
from tests.service.api.finished import begun

SHRINK: dict[str, Any] = {"steps": [{"type": "shrink", "factor": 0.5}]}


def form(
    adapter: bytes, request: Any = None, *, name: str = "adapter.tar.gz", **parts: Any
) -> dict[str, Any]:
    files = {"adapter": (name, adapter)} | {
        part: (None, json.dumps(value))
        for part, value in ({"request": request} | parts).items()
        if value is not None
    }
    return {"files": files}


def everything(services: Services) -> str:
    """All that Redis holds."""
    client: Any = services.redis
    readers = {
        "hash": client.hgetall,
        "string": client.get,
        "stream": client.xrange,
        "zset": lambda key: client.zrange(key, 0, -1),
        "set": client.smembers,
        "list": lambda key: client.lrange(key, 0, -1),
    }
    return repr([readers[client.type(key)](key) for key in client.keys("*")])


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_form_is_checked_stored_and_sent(
    client: TestClient, services: Services, tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    answer = client.post("/repair", **form(pack(folder()), SHRINK))
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert job["status"] == "queued"
    assert job["steps"] == [{"type": "shrink", "factor": 0.5}]
    record = services.store.get(job["id"])
    assert record is not None
    assert set(record.input) == {"adapter_config.json", "adapter_model.safetensors"}
    assert b"".join(services.storage.open(record.input["adapter_model.safetensors"])) == weights()
    assert record.source_resolved == {"upload": record.source.upload}
    assert services.redis.llen(queue_key("spectral")) == 1
    assert received(tmp_path) == []


def test_a_bare_safetensors_file_comes_with_its_config(client: TestClient, services: Services) -> None:
    answer = client.post("/inspect", **form(weights(), name="adapter_model.safetensors", config=CONFIG))
    assert answer.status_code == 202, answer.text
    assert answer.json()["kind"] == "inspect"
    assert answer.json()["threat"] is None
    record = services.store.get(answer.json()["id"])
    assert record is not None
    assert set(record.input) == {"adapter_config.json", "adapter_model.safetensors"}


def test_an_upload_is_named_by_its_digest(client: TestClient, services: Services) -> None:
    archive = tar_gz(folder())
    digest = hashlib.sha256(archive).hexdigest()
    assert client.put(f"/uploads/{digest}", content=archive).status_code == 201
    answer = client.post("/repair", json={"source": {"upload": digest}} | SHRINK)
    assert answer.status_code == 202, answer.text
    record = services.store.get(answer.json()["id"])
    assert record is not None
    assert set(record.input) == {"adapter_config.json", "adapter_model.safetensors"}


def test_an_upload_that_is_not_there(client: TestClient) -> None:
    answer = client.post("/repair", json={"source": {"upload": "0" * 64}} | SHRINK)
    found = problem(answer, 422, "adapter_not_found")
    assert found["errors"][0]["pointer"] == "/source/upload"


@pytest.mark.parametrize(
    "request_",
    [
        {"source": {"hub_id": "org/adapter", "revision": "main"}} | SHRINK,
        {"source": {"hub_id": "org/adapter"}, "base": "org/base"},
        {"source": {"hub_id": "org/adapter"}, "publish": {"repo_id": "me/out"}} | SHRINK,
    ],
)
def test_what_needs_the_hub_goes_to_the_io_queue_first(
    client: TestClient, services: Services, request_: dict[str, Any]
) -> None:
    assert client.post("/repair", json=request_).status_code == 202
    assert services.redis.llen(queue_key("io")) == 1
    assert services.redis.llen(queue_key("spectral")) == 0


def test_publishing_a_form_goes_to_the_io_queue_first(client: TestClient, services: Services) -> None:
    answer = client.post("/repair", **form(tar_gz(folder()), SHRINK | {"publish": {"repo_id": "me/out"}}))
    assert answer.status_code == 202
    assert services.redis.llen(queue_key("io")) == 1


HOSTILE = {
    "pickle_refused": form(
        zipped({"adapter_config.json": json.dumps(CONFIG).encode(), "adapter_model.bin": b"\x80"})
    ),
    "archive_unsafe": form(zipped(folder() | {"../evil": b"x"})),
    "safetensors_invalid": form(tar_gz(folder() | {"adapter_model.safetensors": weights()[:-5]})),
    "peft_type_unsupported": form(tar_gz(folder(peft_type="LOHA"))),
    "config_unsupported": form(tar_gz(folder(use_dora=True))),
    "tensor_shape_mismatch": form(tar_gz(folder(r=8))),
    "archive_invalid": form(tar_gz(folder())[:-200]),
    "config_invalid": form(weights(), name="adapter_model.safetensors"),
}


@pytest.mark.parametrize("code", HOSTILE)
def test_a_bad_adapter_is_refused_at_once_and_nothing_is_kept(
    client: TestClient, services: Services, tmp_path: Path, code: str
) -> None:
    kept = HOSTILE[code]
    kept["files"]["request"] = (None, json.dumps(SHRINK))
    problem(client.post("/repair", **kept), 422, code)
    assert services.store.page(None, 10) == ([], None)
    assert not list((tmp_path / "blobs").rglob("sha256/*/*"))
    assert received(tmp_path) == []


def test_all_that_is_wrong_with_a_request_is_told_at_once(client: TestClient) -> None:
    answer = client.post("/repair", json={"source": {}, "seed": -1, "steps": [{"type": "csu", "k": 0}]})
    found = problem(answer, 422, "request_invalid")
    assert {item["pointer"] for item in found["errors"]} == {"/source", "/seed", "/steps/0/k"}


@pytest.mark.parametrize(
    ("document", "code", "pointer"),
    [
        ({"steps": [{"type": "csu"}]}, "reference_required", "/aligned"),
        ({"base": {"path": "/etc"}}, "path_not_allowed", "/base/path"),
        ({"source": {"hub_id": "a/b"}}, "request_invalid", "/source"),
    ],
)
def test_a_request_that_cannot_be_met(client: TestClient, document: Any, code: str, pointer: str) -> None:
    found = problem(client.post("/repair", **form(tar_gz(folder()), document)), 422, code)
    assert found["errors"][0]["pointer"] == pointer


def test_a_model_path_under_a_root_is_allowed(client: TestClient, tmp_path: Path) -> None:
    model = tmp_path / "models" / "base"
    model.mkdir(parents=True)
    answer = client.post("/repair", **form(tar_gz(folder()), {"base": {"path": str(model)}}))
    assert answer.status_code == 202, answer.text


CUT_SHORT = b'--b\r\nContent-Disposition: form-data; name="adapter"\r\n\r\nx'


@pytest.mark.parametrize(
    ("content", "media", "status", "code"),
    [
        (b"{", "application/json", 422, "request_invalid"),
        (b"[]", "application/json", 422, "request_invalid"),
        (b"", "application/json", 422, "request_invalid"),
        (b'{"seed": NaN}', "application/json", 422, "request_invalid"),
        (b"[" * 50_000, "application/json", 422, "request_invalid"),
        (b" " * 70_000, "application/json", 413, "payload_too_large"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "", 415, "unsupported_media_type"),
        (b"x", "multipart/form-data", 422, "request_invalid"),
        (b"x", "multipart/form-data; boundary=b", 422, "request_invalid"),
        (CUT_SHORT, "multipart/form-data; boundary=b", 422, "request_invalid"),
    ],
)
def test_a_body_that_cannot_be_read(
    client: TestClient, content: bytes, media: str, status: int, code: str
) -> None:
    headers = {"Content-Type": media} if media else {}
    problem(client.post("/repair", content=content, headers=headers), status, code)


@pytest.mark.parametrize(
    ("files", "pointer"),
    [
        ([("request", (None, "{}"))], "/adapter"),
        ([("adapter", ("a", b"x")), ("other", (None, "x"))], "/other"),
        ([("adapter", ("a", b"x")), ("adapter", ("a", b"x"))], "/adapter"),
        ([("adapter", ("a", b"x")), ("request", (None, "{"))], "/request"),
        ([("adapter", ("a", b"x")), ("config", (None, "[]"))], "/config"),
    ],
)
def test_a_form_that_is_not_ours(client: TestClient, files: Any, pointer: str) -> None:
    found = problem(client.post("/repair", files=files), 422, "request_invalid")
    assert found["errors"][0]["pointer"] == pointer


def test_a_json_part_has_its_own_cap(client: TestClient) -> None:
    answer = client.post("/repair", files={"adapter": ("a", b"x"), "request": (None, " " * 70_000)})
    found = problem(answer, 413, "payload_too_large")
    assert found["errors"][0]["pointer"] == "/request"


def test_the_same_key_and_body_give_the_same_job(client: TestClient, services: Services) -> None:
    sent = [
        client.post("/repair", **form(tar_gz(folder()), request), headers={"Idempotency-Key": "k1"})
        for request in (SHRINK, {"steps": [{"factor": 0.5, "type": "shrink"}]})
    ]
    assert [answer.status_code for answer in sent] == [202, 202]
    assert sent[0].json()["id"] == sent[1].json()["id"]
    assert services.redis.llen(queue_key("spectral")) == 1


def test_the_same_key_with_another_body_is_refused(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = client.post("/repair", json={"source": {"hub_id": "a/b"}} | SHRINK, headers=headers)
    assert first.status_code == 202
    other = client.post("/repair", json={"source": {"hub_id": "a/c"}} | SHRINK, headers=headers)
    problem(other, 422, "idempotency_key_reused")
    kind = client.post("/inspect", json={"source": {"hub_id": "a/b"}}, headers=headers)
    problem(kind, 422, "idempotency_key_reused")


def test_a_key_in_flight_is_refused(client: TestClient, services: Services) -> None:
    document = {"source": {"hub_id": "a/b"}}
    first = client.post("/inspect", json=document, headers={"Idempotency-Key": "other"})
    digest = services.redis.hget(next(iter(services.redis.scan_iter("loramend:idempotency:*"))), "digest")
    assert first.status_code == 202
    assert isinstance(digest, str)
    with services.store.claiming("k1", digest, new_job_id()):
        problem(
            client.post("/inspect", json=document, headers={"Idempotency-Key": "k1"}),
            409,
            "idempotency_in_flight",
        )


def test_a_refused_request_frees_its_key(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k1"}
    problem(
        client.post("/repair", **form(tar_gz(folder(r=8)), SHRINK), headers=headers),
        422,
        "tensor_shape_mismatch",
    )
    assert client.post("/repair", **form(tar_gz(folder()), SHRINK), headers=headers).status_code == 202


def test_a_key_must_be_printable(client: TestClient) -> None:
    answer = client.post("/repair", json={"source": {"hub_id": "a/b"}}, headers={"Idempotency-Key": "a b"})
    assert problem(answer, 422, "request_invalid")["errors"][0]["pointer"] == "/header/Idempotency-Key"


def test_a_hub_token_is_sealed_and_in_no_answer(
    client: TestClient, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    document = {"source": {"hub_id": "a/b"}, "hub_token": "hf_verysecret"}
    with caplog.at_level("DEBUG"):
        answer = client.post("/inspect", json=document)
    assert answer.status_code == 202
    token = services.vault.get(answer.json()["id"])
    assert token is not None
    assert token.get_secret_value() == "hf_verysecret"
    stored = everything(services)
    for text in (stored, answer.text, caplog.text, client.get("/jobs").text):
        assert "hf_verysecret" not in text


def test_waiting_answers_when_the_job_ends(client: TestClient, services: Services) -> None:
    answer = client.post("/inspect", json={"source": {"hub_id": "a/b"}}, headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"

    def finish() -> None:
        record = services.store.page(None, 1)[0][0]
        services.store.finish(begun(services, record), "failed")

    timer = threading.Timer(0.3, finish)
    timer.start()
    answer = client.post("/inspect", json={"source": {"hub_id": "a/c"}}, headers={"Prefer": "wait=30"})
    timer.join()
    assert answer.status_code == 200
    assert answer.json()["status"] in TERMINAL
    assert answer.headers["preference-applied"] == "wait=30"
    assert "retry-after" not in answer.headers


def test_a_token_without_a_key_to_seal_it_is_refused(settings: ServiceSettings, tmp_path: Path) -> None:
    with connect(create_app(settings.model_copy(update={"secret_key": None}))) as client:
        answer = client.post("/repair", **form(tar_gz(folder()), SHRINK | {"hub_token": "hf_verysecret"}))
    found = problem(answer, 422, "request_invalid")
    assert found["errors"][0]["pointer"] == "/hub_token"
    assert "LORAMEND_SECRET_KEY" in found["detail"]
    assert not list((tmp_path / "blobs").rglob("sha256/*/*"))


def test_a_refused_request_leaves_no_token(client: TestClient, services: Services) -> None:
    answer = client.post("/repair", **form(tar_gz(folder(r=8)), SHRINK | {"hub_token": "hf_verysecret"}))
    problem(answer, 422, "tensor_shape_mismatch")
    assert list(services.redis.scan_iter("loramend:token:*")) == []


def test_a_job_whose_message_cannot_be_sent_waits_for_the_reaper(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(job_id: str, queue: str) -> None:
        raise LoramendError("broker_unavailable", "down")

    monkeypatch.setattr(services.dispatcher, "send", down)
    answer = client.post("/inspect", json={"source": {"hub_id": "a/b"}})
    assert answer.status_code == 202
    assert services.redis.zscore("loramend:due", answer.json()["id"]) is not None


def test_a_part_with_an_endless_header_is_refused(client: TestClient) -> None:
    content = b"--b\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    problem(client.post("/repair", content=content, headers=headers), 422, "request_invalid")


@pytest.mark.parametrize("document", [{}, {"threat": "poisoned_base"}, {"steps": [{"type": "intruders"}]}])
def test_a_base_may_be_left_to_the_adapters_own_config(client: TestClient, document: Any) -> None:
    """Which only the worker reads."""
    kept = form(tar_gz(folder()))
    kept["files"]["request"] = (None, json.dumps(document))
    assert client.post("/repair", **kept).status_code == 202
