"""A browser and a served page; tests that need them are skipped where there is no Chromium."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models import Trio, build_trio
from tests.serve import Served, free_port, serving
from tests.web.chromium import chromium, executable


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: make browser")
    path = executable()
    if path is None:
        pytest.skip("no Chromium is installed: make browser, or name one in LORAMEND_TEST_CHROMIUM")
    with chromium(path) as browser:
        yield browser


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh tab. Errors of its scripts fail the test, breaches of its policy among them."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None,
    )
    yield page
    context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def trio(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Trio:
    return build_trio(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(trio: Trio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data: Path = tmp_path_factory.mktemp("served") / "data"
    no_hub = {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}", "LORAMEND_HUB_ATTEMPTS": "1"}
    with serving(data, model_roots=[trio.base.parent], env=no_hub) as served:
        yield served
