"""`python -m tests.web.figures`: take the page's pictures for the docs, from a real server."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.models import build_trio
from tests.serve import serving
from tests.web.acts import await_status, drop_adapter, open_page, submit
from tests.web.chromium import chromium, executable

FIGURES = Path(__file__).parent.parent.parent / "docs" / "figures"
_MOST_BYTES = 200 * 1024


def main() -> int:
    """Write docs/figures/web-*.png; 1 where there is no browser, or a picture is too large."""
    path = executable()
    if path is None:
        sys.stderr.write("No Chromium is installed: make browser.\n")
        return 1
    with tempfile.TemporaryDirectory() as folder, chromium(path) as browser:
        trio = build_trio(Path(folder) / "models")
        with serving(Path(folder) / "data", model_roots=[trio.base.parent]) as served:
            _take(browser, served.url, trio.adapter, str(trio.base), str(trio.aligned))
    large = [file.name for file in FIGURES.glob("web-*.png") if file.stat().st_size > _MOST_BYTES]
    if large:
        sys.stderr.write(f"Over {_MOST_BYTES} bytes: {', '.join(large)}\n")
    return 1 if large else 0


def _take(browser: Any, url: str, adapter: Path, base: str, aligned: str) -> None:
    wide = browser.new_page(viewport={"width": 900, "height": 840})
    open_page(wide, url)
    drop_adapter(wide, adapter)
    wide.screenshot(path=FIGURES / "web-repair.png")
    wide.fill("#base", base)
    wide.fill("#aligned", aligned)
    submit(wide)
    await_status(wide, "succeeded")
    wide.wait_for_selector("#pull-command")
    wide.screenshot(path=FIGURES / "web-report.png")
    narrow = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme="dark")
    open_page(narrow, url)
    drop_adapter(narrow, adapter)
    narrow.locator("#steps-help").scroll_into_view_if_needed()
    narrow.screenshot(path=FIGURES / "web-narrow.png")


if __name__ == "__main__":
    sys.exit(main())
