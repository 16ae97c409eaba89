"""A request's webhook: checked as it comes, its secret nowhere in clear."""

import base64
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.state import Services
from service.app import create_app
from service.settings import ServiceSettings
from tests.fixtures.receiver import SECRET, SECRET_BYTES
from tests.service.api.adapters import folder, tar_gz
from tests.service.api.answers import problem
from tests.service.api.conftest import connect
from tests.service.api.test_submit import SHRINK, everything, form

HOOK = {"url": "https://example.org/hook?to=me", "secret": SECRET}
HUB = {"source": {"hub_id": "a/b"}}


@pytest.mark.parametrize("kind", ["inspect", "repair", "form"])
def test_the_job_tells_its_webhook_and_not_the_secret(
    client: TestClient, services: Services, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    with caplog.at_level("DEBUG"):
        if kind == "form":
            answer = client.post("/repair", **form(tar_gz(folder()), SHRINK | {"webhook": HOOK}))
        else:
            answer = client.post(f"/{kind}", json=HUB | {"webhook": HOOK})
    assert answer.status_code == 202, answer.text
    assert answer.json()["webhook"] == {"url": HOOK["url"], "state": "waiting", "attempts": 0}
    record = services.store.get(answer.json()["id"])
    assert record is not None
    assert record.webhook_secret is not None
    unsealed = services.sealer.unseal(record.webhook_secret)
    assert unsealed is not None
    assert unsealed.get_secret_value() == SECRET
    shown = client.get(f"/jobs/{record.id}").text + client.get(f"/jobs/{record.id}/events").text
    for text in (everything(services), answer.text, caplog.text, client.get("/jobs").text, shown):
        assert SECRET not in text
        assert SECRET[6:] not in text
        assert "webhook_secret" not in text or text == everything(services)


@pytest.mark.parametrize(
    ("hook", "pointer"),
    [
        ({"url": HOOK["url"]}, "/webhook/secret"),
        ({"secret": SECRET}, "/webhook/url"),
        (HOOK | {"secret": "hush"}, "/webhook/secret"),
        (HOOK | {"secret": SECRET[6:]}, "/webhook/secret"),
        (HOOK | {"secret": "whsec_" + base64.b64encode(SECRET_BYTES[:23]).decode()}, "/webhook/secret"),
        (HOOK | {"secret": "whsec_" + base64.b64encode(SECRET_BYTES * 3).decode()}, "/webhook/secret"),
        (HOOK | {"secret": "whsec_" + "*" * 44}, "/webhook/secret"),
        (HOOK | {"url": "ftp://example.org/"}, "/webhook/url"),
        (HOOK | {"url": "https://"}, "/webhook/url"),
        (HOOK | {"url": "https:///hook"}, "/webhook/url"),
        (HOOK | {"url": "https://user:pass@example.org/"}, "/webhook/url"),
        (HOOK | {"url": "https://example.org\\@10.0.0.1/"}, "/webhook/url"),
        (HOOK | {"url": "https://exa mple.org/"}, "/webhook/url"),
        (HOOK | {"url": "https://example.org/\r\nX: y"}, "/webhook/url"),
        (HOOK | {"url": "https://ex%61mple.org/"}, "/webhook/url"),
        (HOOK | {"url": "https://exämple.org/"}, "/webhook/url"),
        (HOOK | {"url": "https://example.org:0/"}, "/webhook/url"),
        (HOOK | {"url": "https://example.org:99999/"}, "/webhook/url"),
        (HOOK | {"url": "https://[::1/"}, "/webhook/url"),
        (HOOK | {"url": "https://[fe80::1%25eth0]/"}, "/webhook/url"),
        (HOOK | {"url": "https://example.org/#there"}, "/webhook/url"),
        (HOOK | {"url": "https://example.org/" + "x" * 2048}, "/webhook/url"),
        (HOOK | {"events": ["job.failed"]}, "/webhook/events"),
    ],
)
def test_what_is_no_webhook_is_refused(client: TestClient, hook: dict[str, Any], pointer: str) -> None:
    answer = client.post("/inspect", json=HUB | {"webhook": hook})
    found = problem(answer, 422, "request_invalid")
    assert [item["pointer"] for item in found["errors"]] == [pointer]
    assert str(hook.get("secret")) not in answer.text


@pytest.mark.parametrize("url", ["https://169.254.169.254/", "https://localhost/", "http://example.org/"])
def test_a_private_target_is_refused(client: TestClient, services: Services, url: str) -> None:
    found = problem(
        client.post("/repair", **form(tar_gz(folder()), SHRINK | {"webhook": HOOK | {"url": url}})),
        422,
        "webhook_not_allowed",
    )
    assert found["errors"][0]["pointer"] == "/webhook/url"
    assert services.store.page()[0] == []


def test_the_settings_may_allow_it(settings: ServiceSettings) -> None:
    allowing = settings.model_copy(update={"webhook_private_hosts": ("inside",)})
    with connect(create_app(allowing)) as client:
        answer = client.post("/inspect", json=HUB | {"webhook": HOOK | {"url": "http://inside/hook"}})
        assert answer.status_code == 202


def test_without_a_key_to_seal_its_secret_it_is_refused(settings: ServiceSettings) -> None:
    with connect(create_app(settings.model_copy(update={"secret_key": None}))) as client:
        found = problem(client.post("/inspect", json=HUB | {"webhook": HOOK}), 422, "request_invalid")
    assert found["errors"][0]["pointer"] == "/webhook/secret"
    assert "LORAMEND_SECRET_KEY" in found["detail"]


def test_the_same_request_gives_the_same_job(client: TestClient) -> None:
    headers = {"Idempotency-Key": "one"}
    document = HUB | {"webhook": HOOK}
    first = client.post("/inspect", json=document, headers=headers)
    assert client.post("/inspect", json=document, headers=headers).json()["id"] == first.json()["id"]
    other = HUB | {"webhook": HOOK | {"url": "https://example.org/other"}}
    problem(client.post("/inspect", json=other, headers=headers), 422, "idempotency_key_reused")
