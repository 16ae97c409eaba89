"""A headless Chromium for the tests of the web page."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def executable() -> str | None:
    """The system's Chromium, or the one that LORAMEND_TEST_CHROMIUM names; None where there is none."""
    found = (shutil.which(name) for name in (os.environ.get("LORAMEND_TEST_CHROMIUM", ""), *_NAMES) if name)
    return next((path for path in found if path), None)


@contextlib.contextmanager
def chromium(path: str) -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
