from typing import Any

from fastapi.testclient import TestClient

from loramend.contracts.job import Progress
from service.api.state import Services
from tests.service.api.answers import problem
from tests.service.api.finished import begun, ended, put, queued, repaired


def test_pages_go_from_newest_to_oldest(client: TestClient, services: Services) -> None:
    ids = [queued(services).id for _ in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    pages = 0
    while True:
        page = client.get("/jobs", params=query).json()
        seen += [job["id"] for job in page["jobs"]]
        pages += 1
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == sorted(ids, reverse=True)
    assert pages == 3


def test_filters(client: TestClient, services: Services) -> None:
    waiting = queued(services, kind="inspect", threat=None)
    failed = ended(services, "failed")
    assert [job["id"] for job in client.get("/jobs?status=failed").json()["jobs"]] == [failed.id]
    assert [job["id"] for job in client.get("/jobs?kind=inspect").json()["jobs"]] == [waiting.id]
    assert client.get("/jobs?kind=inspect&status=failed").json()["jobs"] == []


def test_a_page_is_asked_for_rightly(client: TestClient) -> None:
    for query in (
        "limit=0",
        "limit=201",
        "limit=x",
        "status=done",
        "kind=other",
        "cursor=garbage",
        "cursor=%00",
    ):
        found = problem(client.get(f"/jobs?{query}"), 422, "request_invalid")
        assert found["errors"][0]["pointer"] == f"/query/{query.split('=')[0]}"


def test_a_jobs_etag_changes_with_the_job(client: TestClient, services: Services) -> None:
    record = queued(services)
    first = client.get(f"/jobs/{record.id}")
    assert first.json()["status"] == "queued"
    etag = first.headers["etag"]
    assert etag.startswith('W/"')
    again = client.get(f"/jobs/{record.id}", headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    lease = begun(services, record)
    services.store.progress(lease, Progress(phase="repair", done=1, total=2))
    changed = client.get(f"/jobs/{record.id}", headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.json()["progress"]["done"] == 1


def test_only_public_fields_are_shown(client: TestClient, services: Services) -> None:
    job = client.get(f"/jobs/{repaired(services).id}").json()
    assert not {"input", "output", "archive", "phase_queue", "source_resolved"} & job.keys()
    assert job["result"]["repo_id"] == f"repaired/{job['id']}"


def test_a_job_that_is_not_there(client: TestClient) -> None:
    for method, path in (
        ("GET", "/jobs/nosuch"),
        ("DELETE", "/jobs/nosuch"),
        ("POST", "/jobs/nosuch/cancel"),
        ("GET", "/jobs/nosuch/events"),
        ("GET", "/jobs/nosuch/report"),
        ("GET", "/jobs/nosuch/adapter"),
        ("GET", "/jobs/%00%ff"),
    ):
        problem(client.request(method, path), 404, "not_found")


def test_canceling(client: TestClient, services: Services) -> None:
    waiting = queued(services)
    assert client.post(f"/jobs/{waiting.id}/cancel").json()["status"] == "canceled"
    running = queued(services)
    begun(services, running)
    asked = client.post(f"/jobs/{running.id}/cancel")
    assert asked.status_code == 200
    assert (asked.json()["status"], asked.json()["cancel_requested"]) == ("running", True)
    problem(client.post(f"/jobs/{waiting.id}/cancel"), 409, "job_already_finished")


def test_deleting_takes_the_files_too_but_not_those_of_others(client: TestClient, services: Services) -> None:
    shared = put(services, b"shared")
    own = put(services, b"own")
    first = queued(services, input={"a": shared, "b": own})
    other = queued(services, input={"a": shared})
    for ref in (shared, own):
        services.redis.zrem(f"loramend:blob:{ref.sha256}", "test")
    assert client.delete(f"/jobs/{first.id}").status_code == 204
    assert client.get(f"/jobs/{first.id}").status_code == 404
    assert services.storage.exists(own.sha256) is None
    assert services.storage.exists(shared.sha256) is not None
    assert client.delete(f"/jobs/{other.id}").status_code == 204
    assert services.storage.exists(shared.sha256) is None
    problem(client.delete(f"/jobs/{other.id}"), 404, "not_found")


def test_a_running_job_can_be_deleted(client: TestClient, services: Services) -> None:
    record = queued(services)
    lease = begun(services, record)
    assert client.delete(f"/jobs/{record.id}").status_code == 204
    assert services.store.renew(lease, 60) is False
