"""What every answer says to a browser that should come by it."""

import pytest
from fastapi.testclient import TestClient

from service.api.state import Services
from tests.service.api.finished import repaired


def policy(answer_header: str) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in answer_header.split(";"))
    return {name: value for name, _, value in parts}


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/jobs", "/nosuch", "/metrics", "JOB", "JOB/report", "JOB/adapter", "HUB"]
)
def test_nothing_may_be_framed_sniffed_or_run(client: TestClient, services: Services, path: str) -> None:
    job = repaired(services).id
    path = path.replace("JOB", f"/jobs/{job}").replace(
        "HUB", f"/repaired/{job}/resolve/main/adapter_config.json"
    )
    for method in ("GET", "HEAD", "PATCH"):
        headers = client.request(method, path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        said = policy(headers["content-security-policy"])
        assert (said["default-src"], said["frame-ancestors"]) == ("'none'", "'none'")
        assert "sandbox" in said


def test_refusals_at_the_door_too(client: TestClient) -> None:
    answer = client.get("/jobs", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert answer.headers["x-frame-options"] == "DENY"


def test_a_page_keeps_its_own_policy(client: TestClient, services: Services) -> None:
    answer = client.get(f"/jobs/{repaired(services).id}/report", headers={"Accept": "text/html"})
    assert answer.headers.get_list("content-security-policy") == [answer.headers["content-security-policy"]]
    assert policy(answer.headers["content-security-policy"])["style-src"] == "'unsafe-inline'"
