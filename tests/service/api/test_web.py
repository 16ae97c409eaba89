"""The web page as it is served: open, cached, under a policy of its own."""

import re

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from service.api.state import Services
from service.api.web import ASSETS
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.api.answers import problem
from tests.service.api.conftest import connect
from worker.process import WorkerProcess
from worker.reaper import Reaper
from worker.settings import WorkerSettings
from worker.tools import open_tools

TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "/": "text/html"}


def test_it_needs_no_key(settings: ServiceSettings) -> None:
    keyed = settings.model_copy(update={"api_keys": (SecretStr("a key of sixteen characters"),)})
    with connect(create_app(keyed)) as client:
        for path in ASSETS:
            assert client.get(path).status_code == 200
        problem(client.get("/web/nosuch.js"), 401, "unauthorized")
        problem(client.get("/methods"), 401, "unauthorized")


@pytest.mark.parametrize("path", sorted(ASSETS))
def test_each_file_has_its_type_policy_and_etag(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["content-type"].split(";")[0] == TYPES[path.rpartition(".")[2]]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(path).status_code == 200
    problem(client.post(path), 405, "method_not_allowed")


def test_nothing_outside_the_folder_is_served(client: TestClient) -> None:
    for path in ("/web/", "/web/index.html", "/web/../api/web.py", "/web/%2e%2e/settings.py", "/web/x.js"):
        problem(client.get(path), 404, "not_found")


def test_it_loads_its_own_files_alone_and_all_are_used() -> None:
    text = {path: asset.content.decode() for path, asset in ASSETS.items()}
    used = {"/"}
    for path, content in text.items():
        if path.endswith(".js"):
            used |= {f"/web/{name}" for name in re.findall(r'from "\./([^"]+)"', content)}
    used |= set(re.findall(r'(?:href|src)="(/web/[^"]+)"', text["/"]))
    assert used == set(ASSETS)
    for path, content in text.items():
        assert not re.search(r"(href|src)=[\"']https?:", content), path


def test_text_is_put_in_as_text() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\bon\w+=\"|style="
    )
    for path, asset in ASSETS.items():
        assert not re.search(forbidden, asset.content.decode()), path


def test_it_is_told_whether_results_can_be_published(
    client: TestClient, services: Services, settings: ServiceSettings
) -> None:
    assert client.get("/methods").json()["publishing"] == {"own_token": False, "takes_token": True}
    process = WorkerProcess(["io"])
    place = {"broker_url": settings.broker_url, "storage_url": settings.storage_url}
    worker = WorkerSettings(**place, work_dir="/nowhere", hub_token="hf_of_the_worker")
    Reaper(open_tools(worker), worker, process).look()
    assert client.get("/methods").json()["publishing"]["own_token"]
    without = settings.model_copy(update={"secret_key": None})
    with connect(create_app(without)) as other:
        assert not other.get("/methods").json()["publishing"]["takes_token"]


def test_the_default_recipes_are_told(client: TestClient) -> None:
    told = {
        (recipe["threat"], recipe["base"], recipe["aligned"], recipe["text"]): recipe["steps"]
        for recipe in client.get("/methods").json()["recipes"]
    }
    assert told["poisoned_adapter", True, True, False] == ["csu"]
    assert told["poisoned_adapter", True, False, True] == ["clean_subspace", "rora"]
    assert told["poisoned_base", True, False, False] == ["rescale"]
    assert not any(not base for _, base, _, _ in told)
