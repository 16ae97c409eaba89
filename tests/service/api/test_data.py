"""Text that comes with POST /repair: form parts, uploads, Hub datasets, and what is refused at once."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from loramend.contracts.data import DATA_ROLES
from service.api.state import Services
from service.jobs.queue import queue_key
from service.jobs.records import JobRecord
from tests.service.api.adapters import folder, tar_gz
from tests.service.api.answers import problem
from tests.service.api.conftest import received

LABELLED = b'{"text": "a good film", "label": 1}\n{"text": "a bad film", "label": 0}\n'
PLAIN = b'{"text": "some sentence"}\n'
RORA: dict[str, Any] = {"steps": [{"type": "rora"}]}
SHRINK: dict[str, Any] = {"steps": [{"type": "shrink"}]}
TRIGGERED: dict[str, Any] = {"evaluation": {"target": 1, "triggered": {}}}


def form(request: Any, **parts: bytes | tuple[str, bytes]) -> dict[str, Any]:
    """A form with an adapter, the request, and files of text by their roles."""
    files = {"adapter": ("adapter.tar.gz", tar_gz(folder())), "request": (None, json.dumps(request))}
    files |= {
        role: part if isinstance(part, tuple) else (f"{role}.jsonl", part) for role, part in parts.items()
    }
    return {"files": files}


def accepted(client: TestClient, services: Services, **sent: Any) -> JobRecord:
    answer = client.post("/repair", **sent)
    assert answer.status_code == 202, answer.text
    record = services.store.get(answer.json()["id"])
    assert record is not None
    return record


def put(client: TestClient, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    assert client.put(f"/uploads/{digest}", content=content).status_code == 201
    return digest


def queued(services: Services) -> list[str]:
    return [queue for queue in ("io", "spectral", "train") if services.redis.llen(queue_key(queue))]


def test_every_part_is_checked_stored_and_held_for_the_job(
    client: TestClient, services: Services, tmp_path: Path
) -> None:
    parts = {role: PLAIN if role == "unlabelled" else LABELLED for role in DATA_ROLES}
    record = accepted(client, services, **form(RORA | TRIGGERED, **parts))
    assert record.data.keys() == record.data_files.keys() == set(DATA_ROLES)
    for role, file in record.data_files.items():
        assert b"".join(services.storage.open(file)) == parts[role]
        assert file.name == f"{role}.jsonl"
        assert record.data[role].upload == file.sha256
        assert services.store.blobs.holders(file.sha256) == [record.id]
    assert record.evaluation is not None
    assert record.evaluation.data == record.data["evaluation"]
    assert record.evaluation.triggered == record.data["triggered"]
    assert queued(services) == ["train"]
    assert received(tmp_path) == []
    shown = client.get(f"/jobs/{record.id}").json()
    assert shown["data"]["clean"]["upload"] == record.data_files["clean"].sha256
    assert "data_files" not in shown
    client.delete(f"/jobs/{record.id}")
    assert all(services.storage.exists(file.sha256) is None for file in record.data_files.values())


def test_an_upload_is_named_by_its_digest_and_outlives_its_own_hold(
    client: TestClient, services: Services
) -> None:
    content = LABELLED.replace(b"text", b"sentence")
    request = RORA | {"clean": {"upload": put(client, content), "fields": {"text": "sentence"}}}
    source = {"source": {"upload": put(client, tar_gz(folder()))}}
    record = accepted(client, services, json=request | source)
    assert record.data["clean"].fields == {"text": "sentence"}
    assert set(services.store.blobs.holders(record.data_files["clean"].sha256)) == {"upload", record.id}


def test_a_part_takes_a_field_map_from_the_request(client: TestClient, services: Services) -> None:
    request = RORA | {"clean": {"fields": {"text": "sentence"}}, "validation_share": 0.3}
    record = accepted(client, services, **form(request, clean=LABELLED.replace(b"text", b"sentence")))
    assert record.data["clean"].fields == {"text": "sentence"}
    assert record.validation_share == 0.3


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("C:\\data\\films.jsonl", "films.jsonl"),
        ("../../x.jsonl", "x.jsonl"),
        ("..", "clean.jsonl"),
        ("", "clean.jsonl"),
        ("a\u202eb", "ab"),
    ],
)
def test_a_client_s_file_name_is_only_a_name(
    client: TestClient, services: Services, filename: str, name: str
) -> None:
    record = accepted(client, services, **form(RORA, clean=(filename, LABELLED)))
    assert record.data_files["clean"].name == name


HUB = {"hub_id": "org/films", "file": "train.jsonl"}


@pytest.mark.parametrize(
    ("request_", "parts", "queue"),
    [
        (SHRINK, {}, "spectral"),
        (SHRINK, {"clean": LABELLED}, "spectral"),
        (SHRINK | {"evaluation": {}}, {"evaluation": LABELLED}, "train"),
        (SHRINK, {"evaluation": LABELLED}, "train"),
        ({"steps": [{"type": "clean_subspace"}]}, {"unlabelled": PLAIN}, "train"),
        ({}, {"clean": LABELLED}, "train"),
        ({}, {"unlabelled": PLAIN}, "train"),
        ({}, {}, "spectral"),
        (RORA | {"unlabelled": HUB}, {"clean": LABELLED}, "io"),
        (RORA | {"clean": HUB}, {}, "io"),
        (SHRINK | {"evaluation": {"data": HUB}}, {}, "io"),
    ],
)
def test_what_runs_the_model_goes_to_the_train_queue_and_what_needs_the_hub_to_io(
    client: TestClient, services: Services, request_: Any, parts: dict[str, bytes], queue: str
) -> None:
    record = accepted(client, services, **form(request_, **parts))
    assert queued(services) == [queue]
    assert record.compute_queue == ("train" if queue == "io" else queue)


@pytest.mark.parametrize(
    ("request_", "parts", "code", "pointer"),
    [
        (RORA, {}, "data_required", "/clean"),
        ({"steps": [{"type": "clean_subspace"}]}, {"evaluation": LABELLED}, "data_required", "/clean"),
        (SHRINK | {"evaluation": {}}, {}, "data_required", "/evaluation/data"),
        (RORA | {"clean": {"upload": "0" * 64}}, {}, "data_not_found", "/clean/upload"),
        (RORA, {"clean": PLAIN}, "data_invalid", "/clean"),
        (RORA, {"clean": LABELLED + b"{"}, "data_invalid", "/clean"),
        (RORA, {"clean": b"PK\x03\x04"}, "data_invalid", "/clean"),
        (SHRINK, {"evaluation": PLAIN}, "data_invalid", "/evaluation/data"),
        (
            SHRINK | TRIGGERED,
            {"evaluation": LABELLED, "triggered": b"[]"},
            "data_invalid",
            "/evaluation/triggered",
        ),
        (RORA | {"clean": HUB}, {"clean": LABELLED}, "request_invalid", "/clean"),
        (RORA | {"clean": [1]}, {"clean": LABELLED}, "request_invalid", "/clean"),
        (SHRINK | {"evaluation": 1}, {"evaluation": LABELLED}, "request_invalid", "/evaluation"),
        (RORA, {"clean": LABELLED, "triggered": LABELLED}, "request_invalid", "/evaluation"),
        (RORA, {"validation": LABELLED}, "request_invalid", ""),
        (RORA | {"clean": {"field": 1}}, {"clean": LABELLED}, "request_invalid", "/clean/field"),
    ],
)
def test_data_that_cannot_serve_is_refused_at_once_and_nothing_is_kept(
    client: TestClient,
    services: Services,
    tmp_path: Path,
    request_: Any,
    parts: dict[str, bytes],
    code: str,
    pointer: str,
) -> None:
    found = problem(client.post("/repair", **form(request_, **parts)), 422, code)
    assert found["errors"][0]["pointer"] == pointer
    assert services.store.page(None, 10) == ([], None)
    assert not list((tmp_path / "blobs").rglob("sha256/*/*"))
    assert received(tmp_path) == []


def test_the_line_that_cannot_be_read_is_named(client: TestClient) -> None:
    bad = LABELLED + b'{"text": "no label"}\n'
    found = problem(client.post("/repair", **form(RORA, clean=("films.jsonl", bad))), 422, "data_invalid")
    assert "films.jsonl:3" in found["detail"]
    assert "label" in found["detail"]
    assert found["errors"] == [{"pointer": "/clean", "detail": found["detail"]}]


def test_an_inspection_takes_no_text(client: TestClient) -> None:
    found = problem(client.post("/inspect", **form({}, clean=LABELLED)), 422, "request_invalid")
    assert found["errors"][0]["pointer"] == "/clean"


def test_the_same_key_with_other_text_is_refused(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = client.post("/repair", **form(RORA, clean=LABELLED), headers=headers)
    again = client.post("/repair", **form(RORA, clean=LABELLED), headers=headers)
    assert first.json()["id"] == again.json()["id"]
    other = client.post("/repair", **form(RORA, clean=LABELLED * 2), headers=headers)
    problem(other, 422, "idempotency_key_reused")


def test_methods_say_what_text_they_learn_from(client: TestClient) -> None:
    text = {method["type"]: method["text"] for method in client.get("/methods").json()["methods"]}
    assert text["rora"] == text["clean_subspace"] == "text"
    assert text["shrink"] is None
