from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr, ValidationError

from service.api.guard import is_loopback
from service.app import create_app
from service.settings import ServiceSettings
from tests.serve import free_port
from tests.service.api.answers import problem
from tests.service.api.conftest import connect

KEYS = ("first-key-0123456789", "second-key-0123456789")


@pytest.fixture
def guarded(settings: ServiceSettings) -> FastAPI:
    return create_app(settings.model_copy(update={"api_keys": tuple(map(SecretStr, KEYS))}))


@pytest.mark.parametrize("key", KEYS)
def test_a_key_opens_every_call(guarded: FastAPI, key: str) -> None:
    with connect(guarded, client=("203.0.113.9", 1), base_url="http://loramend.example.org") as client:
        headers = {"Authorization": f"Bearer {key}"}
        for path in ("/jobs", "/methods", "/metrics", "/openapi.json"):
            assert client.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {KEYS[0]}", KEYS[0]])
def test_without_a_key_only_the_probes_answer(guarded: FastAPI, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    with connect(guarded) as client:
        for path in ("/jobs", "/methods", "/metrics", "/nosuch", "/api/models/repaired/x", "/openapi.json"):
            answer = client.get(path, headers=headers)
            problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        problem(client.post("/repair", content=b"{", headers=headers), 401, "unauthorized")
        assert client.get("/healthz", headers=headers).status_code == 200
        assert client.get("/readyz", headers=headers).status_code == 503


def test_a_key_that_cannot_be_looked_up(settings: ServiceSettings) -> None:
    gone = {"broker_url": f"redis://127.0.0.1:{free_port()}/0", "require_keys": True}
    with connect(create_app(settings.model_copy(update=gone))) as client:
        headers = {"Authorization": f"Bearer loramend_{'0' * 12}_{'0' * 48}"}
        answer = client.get("/methods", headers=headers)
        problem(answer, 503, "broker_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("changes", "required"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"require_keys": True}, True),
        ({"api_keys": (SecretStr(KEYS[0]),)}, True),
    ],
)
def test_where_keys_are_asked_for(settings: ServiceSettings, changes: Any, required: bool) -> None:
    changed = settings.model_copy(update=changes)
    assert changed.keys_required is required
    with connect(create_app(changed)) as client:
        assert client.get("/jobs").status_code == (401 if required else 200)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_without_keys_this_machine_is_answered(app: FastAPI, peer: str) -> None:
    with connect(app, client=(peer, 1)) as client:
        assert client.get("/jobs").status_code == 200


@pytest.mark.parametrize("peer", ["203.0.113.9", "10.0.0.1", "::ffff:10.0.0.1", "testclient"])
def test_without_keys_other_machines_are_not(app: FastAPI, peer: str) -> None:
    with connect(app, client=(peer, 1)) as client:
        problem(client.get("/jobs"), 401, "unauthorized")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000", "LocalHost."]
)
def test_without_keys_this_machines_names_are_taken(client: TestClient, host: str) -> None:
    assert client.get("/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[",
        "evil@127.0.0.2",
        "10.0.0.1",
    ],
)
def test_a_rebound_name_gets_nothing(client: TestClient, host: str) -> None:
    problem(client.get("/jobs", headers={"Host": host}), 403, "host_not_allowed")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://evil.example", 403),
        ("null", 403),
        ("http://localhost:3000", 404),
        ("http://127.0.0.1:8000", 404),
    ],
)
def test_another_sites_page_cannot_post(client: TestClient, origin: str, status: int) -> None:
    assert client.post("/jobs/x/cancel", headers={"Origin": origin}).status_code == status


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        (("lora.example.org",), "lora.example.org:8000", 200),
        (("lora.example.org",), "127.0.0.1", 403),
        (("*.example.org",), "a.example.org", 200),
        (("*.example.org",), "example.org", 403),
        (("*",), "anything", 200),
    ],
)
def test_allowed_hosts_are_a_setting(settings: ServiceSettings, allowed: Any, host: str, status: int) -> None:
    app = create_app(settings.model_copy(update={"allowed_hosts": allowed}))
    with connect(app) as client:
        assert client.get("/jobs", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("my-host", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (",".join(KEYS), f'["{KEYS[0]}", "{KEYS[1]}"]', f" {KEYS[0]} , {KEYS[1]},"):
        monkeypatch.setenv("LORAMEND_API_KEYS", text)
        settings = ServiceSettings()
        assert tuple(key.get_secret_value() for key in settings.api_keys) == KEYS
        assert KEYS[0] not in repr(settings)
        assert settings.hosts == ("*",)
    monkeypatch.setenv("LORAMEND_API_KEYS", "short")
    with pytest.raises(ValidationError):
        ServiceSettings()
