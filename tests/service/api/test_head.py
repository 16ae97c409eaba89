"""HEAD answers as GET does, without the body; behind a real server, which is what drops it."""

import httpx

from tests.service.api.conftest import Running
from tests.service.api.finished import repaired


def test_head_tells_what_get_would(running: Running) -> None:
    running.services.store.heartbeat_worker("io+spectral@one", 60)
    job = repaired(running.services).id
    with httpx.Client(base_url=running.url) as client:
        for path in (
            "/healthz",
            "/readyz",
            "/methods",
            "/jobs",
            f"/jobs/{job}",
            f"/jobs/{job}/report",
            f"/jobs/{job}/adapter",
            f"/api/models/repaired/{job}",
            f"/api/models/repaired/{job}/tree/main",
            f"/repaired/{job}/resolve/main/README.md",
            "/jobs/nosuch",
            "/api/models/nosuch",
        ):
            told, given = client.head(path), client.get(path)
            assert told.content == b"", path
            assert told.status_code == given.status_code, path
            own = {"date", "x-request-id", "content-length"}
            assert {k: v for k, v in told.headers.items() if k not in own} == {
                k: v for k, v in given.headers.items() if k not in own
            }, path
            if given.is_success:
                assert told.headers["content-length"] == str(len(given.content)), path


def test_head_is_not_served_for_streams_and_posts(running: Running) -> None:
    job = repaired(running.services).id
    for path, allow in ((f"/jobs/{job}/events", "GET"), ("/repair", "POST")):
        answer = httpx.head(running.url + path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
