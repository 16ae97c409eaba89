"""A browser's way to a job's results where API keys are asked for: what its cookie opens, and how long."""

import time
from datetime import timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from service.api.gate import RESULTS_COOKIE
from service.api.state import Services
from service.app import create_app
from service.jobs.keys import KeyStore, digest_of
from service.jobs.passes import PASS_SECONDS
from service.jobs.state import PREFIX
from service.settings import ServiceSettings
from tests.service.api.answers import problem
from tests.service.api.conftest import connect
from tests.service.api.finished import PAGE, queued, repaired
from tests.service.api.test_keys import SETTINGS_KEY, bearer

HTML = {"Accept": "text/html"}


@pytest.fixture
def app(settings: ServiceSettings) -> FastAPI:
    return create_app(
        settings.model_copy(update={"require_keys": True, "api_keys": (SecretStr(SETTINGS_KEY),)})
    )


@pytest.fixture
def keys(services: Services) -> KeyStore:
    return KeyStore(services.redis)


def take(client: TestClient, job: str, headers: dict[str, str]) -> str:
    """The pass, which the client's jar holds from now on."""
    answer = client.post(f"/jobs/{job}/pass", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    return str(client.cookies[RESULTS_COOKIE])


@pytest.mark.parametrize("who", ["a key that may read alone", "the settings' key"])
def test_it_opens_the_results_of_its_job(
    client: TestClient, services: Services, keys: KeyStore, who: str
) -> None:
    job = repaired(services, owner="alice").id
    problem(client.get(f"/jobs/{job}/report", headers=HTML), 401, "unauthorized")
    given = (
        {"Authorization": f"Bearer {SETTINGS_KEY}"} if "settings" in who else bearer(keys, "alice", "read")
    )
    take(client, job, given)
    page = client.get(f"/jobs/{job}/report", headers=HTML)
    assert (page.status_code, page.content) == (200, PAGE)
    assert "sandbox allow-scripts" in page.headers["content-security-policy"]
    for method in ("GET", "HEAD"):
        assert client.request(method, f"/jobs/{job}/adapter").status_code == 200
    assert client.get(f"/jobs/{job}/adapter", headers={"Range": "bytes=0-9"}).status_code == 206


def test_it_opens_nothing_else(client: TestClient, services: Services, keys: KeyStore) -> None:
    alice = bearer(keys, "alice")
    job, other = repaired(services, owner="alice").id, repaired(services, owner="alice").id
    given = {"Cookie": f"{RESULTS_COOKIE}={take(client, job, alice)}"}
    client.cookies.clear()
    for path in (
        "/jobs",
        f"/jobs/{job}",
        f"/jobs/{job}/events",
        f"/repaired/{job}/resolve/main/x",
        "/metrics",
    ):
        problem(client.get(path, headers=given), 401, "unauthorized")
    for method, path in (("POST", "/cancel"), ("POST", "/pass"), ("DELETE", "/pass"), ("DELETE", "")):
        problem(client.request(method, f"/jobs/{job}{path}", headers=given), 401, "unauthorized")
    problem(client.get(f"/jobs/{other}/report", headers=given), 401, "unauthorized")
    for wrong in ("", "x", given["Cookie"].partition("=")[2][:-1], "\xff"):
        cookie = f"{RESULTS_COOKIE}={wrong}".encode("latin-1")
        answer = client.get(f"/jobs/{job}/report", headers=[(b"cookie", cookie)])
        problem(answer, 401, "unauthorized")
    assert client.get(f"/jobs/{job}/report", headers=given).status_code == 200


def test_it_is_kept_from_scripts_and_other_sites(
    client: TestClient, services: Services, keys: KeyStore
) -> None:
    alice = bearer(keys, "alice")
    job = repaired(services, owner="alice").id
    answer = client.post(f"/jobs/{job}/pass", headers=alice)
    parts = answer.headers["set-cookie"].split("; ")
    assert set(parts[1:]) == {"HttpOnly", "Max-Age=600", f"Path=/jobs/{job}", "SameSite=strict"}
    assert digest_of(parts[0].partition("=")[2]) in str(services.redis.keys(f"{PREFIX}pass:*"))
    assert parts[0].partition("=")[2] not in str(services.redis.keys("*"))
    behind_tls = client.post(f"/jobs/{job}/pass", headers=alice | {"Origin": "https://repair.example.org"})
    assert "Secure" in behind_tls.headers["set-cookie"].split("; ")


def test_it_ends_with_its_time_its_key_and_when_taken_back(
    client: TestClient, services: Services, keys: KeyStore
) -> None:
    job = repaired(services, owner="alice").id
    report = f"/jobs/{job}/report"

    made = keys.create("alice", ["read"])
    text = take(client, job, {"Authorization": f"Bearer {made.key}"})
    assert 0 < services.redis.ttl(f"{PREFIX}pass:{digest_of(text)}") <= PASS_SECONDS
    keys.revoke(made.id)
    assert "closed by now" in problem(client.get(report), 401, "unauthorized")["detail"]

    alice = bearer(keys, "alice")
    text = take(client, job, alice)
    assert client.get(report).status_code == 200
    answer = client.delete(f"/jobs/{job}/pass", headers=alice)
    assert (answer.status_code, "Max-Age=0" in answer.headers["set-cookie"]) == (204, True)
    assert RESULTS_COOKIE not in client.cookies
    problem(client.get(report, headers={"Cookie": f"{RESULTS_COOKIE}={text}"}), 401, "unauthorized")
    assert client.delete(f"/jobs/{job}/pass", headers=alice).status_code == 204

    take(client, job, bearer(keys, "alice"))
    services.redis.delete(*services.redis.keys(f"{PREFIX}pass:*"))  # as when its time is over
    problem(client.get(report), 401, "unauthorized")


def test_a_key_that_expires_ends_it(client: TestClient, services: Services, keys: KeyStore) -> None:
    job = repaired(services, owner="alice").id
    made = keys.create("alice", ["read"], timedelta(seconds=1))
    take(client, job, {"Authorization": f"Bearer {made.key}"})
    time.sleep(1.1)
    assert "expired" in problem(client.get(f"/jobs/{job}/report"), 401, "unauthorized")["detail"]


def test_requests_by_it_count_as_the_keys(settings: ServiceSettings) -> None:
    app = create_app(
        settings.model_copy(
            update={"require_keys": True, "key_requests_per_minute": 6, "key_requests_burst": 3}
        )
    )
    services: Services = app.state.services
    job = repaired(services, owner="alice").id
    with connect(app) as client:
        take(client, job, bearer(KeyStore(services.redis), "alice"))
        assert [client.get(f"/jobs/{job}/report").status_code for _ in range(3)] == [200, 200, 429]


def test_without_a_key_none_is_needed(settings: ServiceSettings) -> None:
    app = create_app(settings)
    job = queued(app.state.services).id
    with connect(app) as client:
        answer = client.post(f"/jobs/{job}/pass")
        assert (answer.status_code, "set-cookie" in answer.headers) == (204, False)
