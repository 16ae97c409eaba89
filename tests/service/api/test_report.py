"""GET /jobs/{id}/report and GET /jobs/{id}/adapter."""

import hashlib

import pytest
from fastapi.testclient import TestClient

from service.api.state import Services
from tests.service.api.adapters import folder, tar_gz
from tests.service.api.answers import problem
from tests.service.api.finished import PAGE, SARIF, begun, ended, queued, repaired


def test_the_report(client: TestClient, services: Services) -> None:
    record = repaired(services)
    answer = client.get(f"/jobs/{record.id}/report")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"schema_version": "1.0"}
    assert record.report is not None
    assert answer.headers["etag"] == f'"{record.report.sha256}"'
    assert answer.headers["vary"] == "Accept"
    for accept in ("*/*", "application/*", "text/html;q=0.5, application/json", "text/html;q=0, */*"):
        same = client.get(f"/jobs/{record.id}/report", headers={"Accept": accept})
        assert (same.content, same.headers["content-type"]) == (answer.content, "application/json")


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "text/*",
        "text/html, application/json;q=0.5",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",  # a browser's
    ],
)
def test_the_report_as_a_page(client: TestClient, services: Services, accept: str) -> None:
    record = repaired(services)
    path = f"/jobs/{record.id}/report"
    answer = client.get(path, headers={"Accept": accept})
    assert (answer.status_code, answer.content) == (200, PAGE)
    etag = f'"{hashlib.sha256(PAGE).hexdigest()}"'
    policy = answer.headers["content-security-policy"]
    assert {"default-src 'none'", "frame-ancestors 'none'", "sandbox allow-scripts"} <= set(
        policy.split("; ")
    )
    [scripts] = [part.split()[1:] for part in policy.split("; ") if part.startswith("script-src")]
    assert {source[:8] for source in scripts} == {"'sha256-"}, "by digest alone"
    told = {name: answer.headers[name] for name in ("content-type", "vary", "etag", "x-content-type-options")}
    assert told == {
        "content-type": "text/html; charset=utf-8",
        "vary": "Accept",
        "etag": etag,
        "x-content-type-options": "nosniff",
    }
    unchanged = client.get(path, headers={"Accept": accept, "If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["vary"]) == (304, b"", "Accept")
    json_form = client.get(path, headers={"If-None-Match": etag})
    assert json_form.status_code == 200, "the page's tag is not the JSON's"


def test_the_report_as_sarif(client: TestClient, services: Services) -> None:
    record = repaired(services)
    answer = client.get(f"/jobs/{record.id}/report", headers={"Accept": "application/sarif+json"})
    assert (answer.status_code, answer.content) == (200, SARIF)
    assert answer.headers["content-type"] == "application/sarif+json"
    assert answer.headers["vary"] == "Accept"
    assert hashlib.sha256(SARIF).hexdigest() in record.blobs()


def test_a_page_that_is_not_there_yet_is_a_problem(client: TestClient, services: Services) -> None:
    answer = client.get(f"/jobs/{queued(services).id}/report", headers={"Accept": "text/html"})
    problem(answer, 409, "job_not_finished")


@pytest.mark.parametrize("accept", ["image/png", "application/xml", "application/json;q=0", "text/html;q=0"])
def test_other_representations_of_the_report_are_not_served(
    client: TestClient, services: Services, accept: str
) -> None:
    record = repaired(services)
    problem(client.get(f"/jobs/{record.id}/report", headers={"Accept": accept}), 406, "not_acceptable")


@pytest.mark.parametrize("what", ["report", "adapter"])
def test_results_come_when_the_job_has_succeeded(client: TestClient, services: Services, what: str) -> None:
    waiting = queued(services)
    problem(client.get(f"/jobs/{waiting.id}/{what}"), 409, "job_not_finished")
    begun(services, waiting)
    problem(client.get(f"/jobs/{waiting.id}/{what}"), 409, "job_not_finished")
    for status in ("failed", "canceled"):
        problem(client.get(f"/jobs/{ended(services, status).id}/{what}"), 409, "job_not_successful")


def test_the_archive(client: TestClient, services: Services) -> None:
    record = repaired(services)
    content = tar_gz(folder())
    path = f"/jobs/{record.id}/adapter"
    etag = f'"{hashlib.sha256(services_archive(services, record.id)).hexdigest()}"'
    whole = client.get(path)
    assert len(whole.content) == len(content)
    assert whole.headers["etag"] == etag
    assert whole.headers["content-type"] == "application/gzip"
    assert whole.headers["accept-ranges"] == "bytes"
    assert "content-encoding" not in whole.headers
    assert f"loramend-{record.id}.tar.gz" in whole.headers["content-disposition"]
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.headers["etag"] == etag
    unchanged = client.get(path, headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


def services_archive(services: Services, job_id: str) -> bytes:
    record = services.store.get(job_id)
    assert record is not None
    assert record.archive is not None
    return b"".join(services.storage.open(record.archive))


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=5-", slice(5, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=3-99999999", slice(3, None)),
    ],
)
def test_ranges_of_the_archive(client: TestClient, services: Services, header: str, part: slice) -> None:
    record = repaired(services)
    content = services_archive(services, record.id)
    answer = client.get(f"/jobs/{record.id}/adapter", headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == content[part]
    start, stop, _ = part.indices(len(content))
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(content)}"
    assert answer.headers["content-length"] == str(stop - start)
    head = client.head(f"/jobs/{record.id}/adapter", headers={"Range": header})
    assert (head.status_code, head.content) == (206, b"")


def test_a_range_past_the_end(client: TestClient, services: Services) -> None:
    record = repaired(services)
    size = len(services_archive(services, record.id))
    answer = client.get(f"/jobs/{record.id}/adapter", headers={"Range": f"bytes={size}-"})
    problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{size}"


def test_if_range(client: TestClient, services: Services) -> None:
    record = repaired(services)
    path = f"/jobs/{record.id}/adapter"
    etag = client.head(path).headers["etag"]
    same = client.get(path, headers={"Range": "bytes=0-1", "If-Range": etag})
    assert (same.status_code, len(same.content)) == (206, 2)
    other = client.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert other.status_code == 200


def test_a_file_that_the_storage_lost(client: TestClient, services: Services) -> None:
    record = repaired(services)
    assert record.archive is not None
    services.storage.delete(record.archive.sha256)
    problem(client.get(f"/jobs/{record.id}/adapter"), 503, "storage_unavailable")
