"""Sending from the page: how far it is, stopping, and publishing what comes of it."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.faults.adapters import make_adapter
from tests.hub.local import LocalHub
from tests.serve import Served, serving
from tests.web.acts import await_status, drop_adapter, only_steps, open_page, submit, violations

pytestmark = [pytest.mark.e2e, pytest.mark.browser]


def limit_upload(session: Any, bytes_per_second: int) -> None:
    """By the browser's own developer tools; -1: as fast as it goes."""
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second}
    session.send("Network.emulateNetworkConditions", limits)


def jobs(server: Served) -> int:
    return len(httpx.get(f"{server.url}/jobs").json()["jobs"])


def test_an_upload_tells_how_far_it_is_and_can_be_stopped(page: Any, server: Served, tmp_path: Path) -> None:
    before = jobs(server)
    open_page(page, server.url)
    drop_adapter(page, make_adapter(tmp_path / "large", modules=16, size=512, rank=64))
    only_steps(page, "shrink")
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    limit_upload(session, 100_000)  # 4 MB, which would take 40 s
    page.click("#submit")
    page.locator("#sending-doing", has_text="%").wait_for()
    page.wait_for_function("document.getElementById('sending-bar').value > 0")
    assert page.evaluate("document.getElementById('sending-bar').value") < 1
    assert "MiB" in page.inner_text("#sending-doing")
    assert page.is_disabled("#submit")
    assert violations(page) == []
    page.click("#stop-sending")
    page.get_by_text("Stopped.").wait_for()
    assert not page.is_visible("#sending")
    assert page.evaluate("document.activeElement.id") == "submit"
    assert jobs(server) == before

    limit_upload(session, -1)
    submit(page)
    await_status(page, "succeeded")
    assert jobs(server) == before + 1


def test_the_result_is_published(page: Any, hub: LocalHub, tmp_path: Path) -> None:
    hub.accounts.add_user("alice")
    token = hub.accounts.add_token("alice", "write")
    env = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": ""}
    with serving(tmp_path / "data", env=env) as served:
        assert httpx.get(f"{served.url}/methods").json()["publishing"] == {
            "own_token": False,
            "takes_token": True,
        }
        open_page(page, served.url)
        drop_adapter(page)
        only_steps(page, "shrink")
        page.get_by_text("Push the result to the Hub").click()
        page.fill("#publish", "no repository")
        page.click("#submit")
        page.locator("#hub-token-problem", has_text="none of its own").wait_for()
        page.fill("#hub-token", token)
        page.click("#submit")
        page.locator("#publish-problem", has_text="pattern").wait_for()
        assert violations(page) == []
        page.fill("#publish", "alice/fixed")
        job = submit(page)
        await_status(page, "succeeded")
        assert page.get_by_role("link", name="alice/fixed").get_attribute("href").startswith(hub.endpoint)
        assert page.input_value("#hub-token") == ""
        asked = httpx.get(f"{served.url}/jobs/{job}").json()
    assert asked["publish"] == {"repo_id": "alice/fixed", "private": True, "create_pr": False}
    assert token not in json.dumps(asked)
    assert hub.repo("alice/fixed").meta.private


@pytest.mark.parametrize("own", [False, True])
def test_the_page_offers_what_the_service_can_do(page: Any, server: Served, own: bool) -> None:
    def told(route: Any) -> None:
        publishing = {"own_token": own, "takes_token": False}
        route.fulfill(json=route.fetch().json() | {"publishing": publishing})

    page.route("**/methods", told)
    open_page(page, server.url)
    assert page.is_visible("#publishing") == own
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert not page.is_visible("#hub-token")
