"""API keys at work: whose job it is, what a scope allows, and how much a key may ask for."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from loramend.contracts.keys import Scope
from service.api.state import Services
from service.app import create_app
from service.jobs.keys import KeyStore
from service.jobs.records import JobRecord
from service.settings import ServiceSettings
from tests.service.api.adapters import folder, tar_gz
from tests.service.api.answers import problem
from tests.service.api.conftest import connect
from tests.service.api.finished import REVISION, queued, repaired

ADAPTER = tar_gz(folder())
DIGEST = hashlib.sha256(ADAPTER).hexdigest()
SHRINK = {"steps": [{"type": "shrink", "factor": 0.5}]}
SETTINGS_KEY = "a-key-of-the-settings"


@pytest.fixture
def asked(settings: ServiceSettings) -> ServiceSettings:
    """Settings of a server that asks for keys."""
    return settings.model_copy(update={"require_keys": True})


@pytest.fixture
def app(asked: ServiceSettings) -> FastAPI:
    return create_app(asked)


@pytest.fixture
def keys(services: Services) -> KeyStore:
    return KeyStore(services.redis)


def bearer(keys: KeyStore, owner: str, *scopes: Scope) -> dict[str, str]:
    made = keys.create(owner, scopes or ("read", "submit"))
    return {"Authorization": f"Bearer {made.key}"}


def submit(client: TestClient, headers: dict[str, str], **more: str) -> Any:
    return client.post("/repair", json={"source": {"upload": DIGEST}, **SHRINK}, headers=headers | more)


def send(client: TestClient, headers: dict[str, str]) -> int:
    """The status of an upload of the adapter."""
    return client.put(f"/uploads/{DIGEST}", content=ADAPTER, headers=headers).status_code


def owned(services: Services, owner: str | None) -> JobRecord:
    """A succeeded repair of that owner."""
    record = repaired(services, owner=owner)
    assert record.owner == owner
    return record


def calls_of(job: str) -> list[tuple[str, str]]:
    """Every call that names the job."""
    paths = [
        f"/jobs/{job}",
        f"/jobs/{job}/events",
        f"/jobs/{job}/report",
        f"/jobs/{job}/adapter",
        f"/api/models/repaired/{job}",
        f"/api/models/repaired/{job}/revision/main",
        f"/api/models/repaired/{job}/tree/main",
        f"/api/models/repaired/{job}/tree/{REVISION}/original",
        f"/api/models/repaired/{job}/xet-read-token/main",
        f"/repaired/{job}/resolve/main/adapter_config.json",
    ]
    reads = [
        (method, path) for path in paths for method in ("GET", "HEAD") if (method, path) != ("HEAD", paths[1])
    ]
    passes = [("POST", f"/jobs/{job}/pass"), ("DELETE", f"/jobs/{job}/pass")]
    return [*reads, *passes, ("POST", f"/jobs/{job}/cancel"), ("DELETE", f"/jobs/{job}")]


@pytest.mark.parametrize("owner", ["alice", None])
def test_to_others_a_job_does_not_exist(
    client: TestClient, services: Services, keys: KeyStore, owner: str | None
) -> None:
    job = owned(services, owner).id
    bob = bearer(keys, "bob")
    for method, path in calls_of(job):
        answer = client.request(method, path, headers=bob)
        assert answer.status_code == 404, (method, path)
        nosuch = client.request(method, path.replace(job, "0" * 32), headers=bob)
        told = answer.text.replace(answer.headers["x-request-id"], "").replace(job, "")
        assert told == nosuch.text.replace(nosuch.headers["x-request-id"], "").replace("0" * 32, "")
        assert answer.headers.keys() == nosuch.headers.keys()
    assert client.get("/jobs", headers=bob).json() == {"jobs": [], "next_cursor": None}
    assert services.store.get(job) is not None


def test_every_route_that_names_a_job_was_tried(app: FastAPI) -> None:
    """A route that is new has to be in the list above."""
    document = app.openapi()
    named = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if "{job_id}" in path or "{namespace}" in path
    }
    tried = calls_of("JOB")
    assert len(named) == 15
    for method, path in named:
        filled = path.replace("{job_id}", "JOB").replace("{namespace}/{name}", "repaired/JOB")
        stem = filled.partition("{")[0].rstrip("/")
        assert any(method == other and called.startswith(stem) for other, called in tried), (method, path)


@pytest.mark.parametrize("who", ["another key of the owner", "an admin", "the settings' key"])
def test_the_owners_keys_and_admins_see_it(asked: ServiceSettings, who: str) -> None:
    app = create_app(asked.model_copy(update={"api_keys": (SecretStr(SETTINGS_KEY),)}))
    services: Services = app.state.services
    keys = KeyStore(services.redis)
    job = owned(services, "alice").id
    owned(services, "bob")
    headers = {
        "another key of the owner": bearer(keys, "alice", "read", "submit"),
        "an admin": bearer(keys, "carol", "admin"),
        "the settings' key": {"Authorization": f"Bearer {SETTINGS_KEY}"},
    }[who]
    with connect(app) as client:
        expected = {"cancel": 409, "original": 404, "xet-read-token": 404, "pass": 204}
        for method, path in calls_of(job):
            status = next((status for word, status in expected.items() if word in path), 200)
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == (204 if method == "DELETE" else status), (method, path)
        listed = [found["owner"] for found in client.get("/jobs", headers=headers).json()["jobs"]]
        assert listed == ([] if "owner" in who else ["bob"])


def test_a_job_belongs_to_its_keys_owner(client: TestClient, services: Services, keys: KeyStore) -> None:
    alice = bearer(keys, "alice")
    assert send(client, alice) == 201
    answer = submit(client, alice)
    assert answer.status_code == 202, answer.text
    assert answer.json()["owner"] == "alice"
    form = {"adapter": ("a.tar.gz", ADAPTER)}
    inspected = client.post("/inspect", files=form, headers=alice)
    assert inspected.json()["owner"] == "alice"
    listed = client.get("/jobs?limit=1", headers=alice).json()
    assert [job["id"] for job in listed["jobs"]] == [inspected.json()["id"]]
    rest = client.get(f"/jobs?cursor={listed['next_cursor']}", headers=alice).json()
    assert [job["id"] for job in rest["jobs"]] == [answer.json()["id"]]


@pytest.mark.parametrize(
    ("scope", "reads", "submits"), [("read", 200, 403), ("submit", 403, 202), ("admin", 200, 202)]
)
def test_scopes(client: TestClient, keys: KeyStore, scope: Scope, reads: int, submits: int) -> None:
    send(client, bearer(keys, "alice"))
    headers = bearer(keys, "alice", scope)
    for path in ("/jobs", "/methods", "/metrics", "/openapi.json"):
        assert client.get(path, headers=headers).status_code == reads
    answer = submit(client, headers)
    assert answer.status_code == submits
    assert send(client, headers) == (403 if submits == 403 else 200)
    if submits == 403:
        found = problem(answer, 403, "forbidden")
        assert "submit" in found["detail"]
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="submit"'
        problem(client.delete("/jobs/x", headers=headers), 403, "forbidden")
        problem(client.post("/jobs/x/cancel", headers=headers), 403, "forbidden")


def test_a_revoked_key_opens_nothing(client: TestClient, keys: KeyStore) -> None:
    made = keys.create("alice", ["read"])
    headers = {"Authorization": f"Bearer {made.key}"}
    assert client.get("/jobs", headers=headers).status_code == 200
    keys.revoke(made.id)
    answer = client.get("/jobs", headers=headers)
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    problem(client.get("/jobs"), 401, "unauthorized")


def test_an_expired_key_opens_nothing_and_says_why(client: TestClient, keys: KeyStore) -> None:
    made = keys.create("alice", ["read"], timedelta(milliseconds=-1))
    answer = client.get("/jobs", headers={"Authorization": f"Bearer {made.key}"})
    assert "This API key expired at " in problem(answer, 401, "unauthorized")["detail"]
    assert answer.headers["www-authenticate"] == "Bearer"


def test_another_owners_upload_is_not_there(client: TestClient, keys: KeyStore) -> None:
    alice, bob = bearer(keys, "alice"), bearer(keys, "bob")
    assert send(client, alice) == 201
    problem(submit(client, bob), 422, "adapter_not_found")
    wrong = client.put(f"/uploads/{DIGEST}", content=b"something else", headers=bob)
    problem(wrong, 409, "digest_mismatch")
    problem(submit(client, bob), 422, "adapter_not_found")
    data = {"source": {"hub_id": "a/b"}, "clean": {"upload": DIGEST}, "steps": [{"type": "rora"}]}
    problem(client.post("/repair", json=data, headers=bob), 422, "data_not_found")
    assert send(client, bob) == 201, "as if nobody had sent it before"
    assert submit(client, bob).status_code == 202
    assert send(client, alice) == 200


def test_idempotency_keys_of_owners_are_apart(client: TestClient, keys: KeyStore) -> None:
    alice, bob = bearer(keys, "alice"), bearer(keys, "bob")
    send(client, alice)
    send(client, bob)
    first = submit(client, alice, **{"Idempotency-Key": "k"}).json()["id"]
    assert submit(client, bearer(keys, "alice"), **{"Idempotency-Key": "k"}).json()["id"] == first
    assert submit(client, bob, **{"Idempotency-Key": "k"}).json()["id"] != first


def test_on_loopback_no_key_is_needed_but_one_that_comes_counts(
    settings: ServiceSettings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)
    keys = KeyStore(app.state.services.redis)
    owned(app.state.services, "alice")
    queued(app.state.services)
    made = keys.create("bob", ["read"])
    with connect(app) as client, caplog.at_level("INFO", "service.access"):
        assert len(client.get("/jobs").json()["jobs"]) == 2
        assert len(client.get("/jobs", headers={"Authorization": "Bearer hf_other"}).json()["jobs"]) == 2
        bob = {"Authorization": f"Bearer {made.key}"}
        assert client.get("/jobs", headers=bob).json()["jobs"] == []
        problem(client.post("/repair", json={}, headers=bob), 403, "forbidden")
        keys.revoke(made.id)
        problem(client.get("/jobs", headers=bob), 401, "unauthorized")
    logged = [vars(record)["key"] for record in caplog.records]
    assert logged == [None, None, made.id, None, None]
    assert made.key not in caplog.text


@contextmanager
def limited(asked: ServiceSettings, **limits: int) -> Iterator[tuple[TestClient, Services]]:
    app = create_app(asked.model_copy(update=limits))
    with connect(app) as client:
        yield client, app.state.services


def test_requests_of_a_key_are_limited(asked: ServiceSettings) -> None:
    with limited(asked, key_requests_per_minute=6, key_requests_burst=3) as (client, services):
        keys = KeyStore(services.redis)
        alice, bob = bearer(keys, "alice"), bearer(keys, "bob")
        assert [client.get("/jobs", headers=alice).status_code for _ in range(3)] == [200, 200, 200]
        answer = client.get("/jobs", headers=alice)
        problem(answer, 429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 10
        assert client.get("/jobs", headers=bob).status_code == 200
        assert client.get("/healthz", headers=alice).status_code == 200


def test_bytes_of_a_key_are_limited(asked: ServiceSettings) -> None:
    day = 24 * 3600
    with limited(asked, key_bytes_per_day=day) as (client, services):
        keys = KeyStore(services.redis)
        alice, bob = bearer(keys, "alice"), bearer(keys, "bob")
        content = bytes(day + 100)
        path = f"/uploads/{'0' * 64}"
        problem(client.put(path, content=content, headers=alice), 409, "digest_mismatch")
        for answer in (client.put(path, content=b"x", headers=alice), submit(client, alice)):
            problem(answer, 429, "quota_exceeded")
            assert 30 <= int(answer.headers["retry-after"]) <= 102
        assert client.get("/jobs", headers=alice).status_code == 200
        waiting = queued(services, owner="alice").id
        assert client.post(f"/jobs/{waiting}/cancel", headers=alice).status_code == 200
        assert client.delete(f"/jobs/{waiting}", headers=alice).status_code == 204
        assert send(client, bob) == 201


def test_unfinished_jobs_of_an_owner_are_limited(asked: ServiceSettings, tmp_path: Path) -> None:
    with limited(asked, owner_active_jobs=2) as (client, services):
        keys = KeyStore(services.redis)
        alice, bob = bearer(keys, "alice"), bearer(keys, "bob")
        send(client, alice)
        send(client, bob)
        first = submit(client, alice, **{"Idempotency-Key": "k"}).json()["id"]
        assert submit(client, alice).status_code == 202
        answer = submit(client, bearer(keys, "alice"))
        problem(answer, 429, "quota_exceeded")
        assert int(answer.headers["retry-after"]) > 0
        again = submit(client, alice, **{"Idempotency-Key": "k"})
        assert (again.status_code, again.json()["id"]) == (202, first)
        assert submit(client, bob).status_code == 202
        client.post(f"/jobs/{first}/cancel", headers=alice)
        assert submit(client, alice).status_code == 202
        assert list((tmp_path / "received").glob("*/*")) == []
