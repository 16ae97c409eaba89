"""The report in a real browser, opened from the disk: it draws, asks nobody, and can be used by keyboard."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loramend.contracts.report import Report
from loramend.report.diff_html import diff_html
from loramend.report.html import report_html
from tests.report.evidence import with_evidence
from tests.report.test_diff import compared
from tests.report.test_html import CSU, MARKUP, hostile, made
from tests.web.acts import violations

pytestmark = [pytest.mark.e2e, pytest.mark.browser]

NAMES = [f"model.layers.{layer}.{kind}" for layer in range(10) for kind in ("q_proj", "k_proj", "v_proj")]
DRAWN = "html[data-drawn=yes]"
CELLS = "#heat-plot .mark-rect.role-mark path"


@pytest.fixture(scope="module")
def pages(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the pages: a repair that was measured, an inspection, a comparison, a hostile repair."""
    folder = tmp_path_factory.mktemp("pages")
    repaired = made(CSU, names=NAMES)
    written = {
        "repair": report_html(with_evidence(repaired)),
        "inspect": report_html(made(names=NAMES)),
        "diff": diff_html(compared(base=True)),
        "hostile": report_html(hostile_modules(repaired)),
    }
    for name, html in written.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return folder


def hostile_modules(report: Report) -> Report:
    """Markup wherever an adapter can put its own, in modules that the map has as well."""
    [module] = hostile(report, MARKUP).modules
    named = [module.model_copy(update={"name": f"layers.{layer}.{MARKUP}"}) for layer in range(3)]
    return hostile(report, MARKUP).model_copy(update={"modules": named})


class Opened:
    """A page opened from the disk, with all that it asked for and said on the console."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.said: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))

    def open(self, path: Path) -> Any:
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(DRAWN, state="attached")
        return self.page


def until(page: Any, condition: str) -> None:
    """Return once the condition holds. Playwright's own wait evaluates text in the page, which its policy
    refuses."""
    deadline = time.monotonic() + 30
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(30_000)
    opened = Opened(context.new_page())
    yield opened
    context.close()
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("file:")] == []
    assert len(opened.asked) == 1, "the one file"


@pytest.mark.parametrize("name", ["repair", "inspect", "diff"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_are_drawn_and_axe_finds_nothing(opened: Opened, pages: Path, name: str, scheme: str) -> None:
    opened.page.emulate_media(color_scheme=scheme)
    page = opened.open(pages / f"{name}.html")
    drawn = {"repair": 5, "inspect": 3, "diff": 3}[name]
    assert page.locator(".drawn svg:visible").count() == drawn
    assert page.locator("[data-still]:visible").count() == 0
    assert violations(page) == []


@pytest.mark.parametrize("name", ["repair", "inspect"])
@pytest.mark.parametrize(("wide", "high"), [(1280, 800), (360, 740)])
def test_the_first_screen_answers_the_five_questions(
    opened: Opened, pages: Path, name: str, wide: int, high: int
) -> None:
    opened.page.set_viewport_size({"width": wide, "height": high})
    page = opened.open(pages / f"{name}.html")
    boxes = [box.bounding_box() for box in page.locator(".facts > div, .panels > section").all()]
    assert len(boxes) == 8
    assert max(box["y"] + box["height"] for box in boxes) <= high
    assert page.evaluate("document.documentElement.scrollWidth") <= wide


def test_a_module_is_chosen_and_told_by_keyboard(opened: Opened, pages: Path) -> None:
    page = opened.open(pages / "repair.html")
    first = page.inner_text("#detail-name")
    page.focus("#detail-on")
    page.keyboard.press("Enter")
    until(page, f"document.getElementById('detail-name').textContent !== '{first}'")
    assert page.input_value("#detail-module") == str(NAMES.index(page.inner_text("#detail-name")))
    page.focus("#detail-module")
    page.keyboard.press("Home")
    until(page, f"document.getElementById('detail-name').textContent === '{NAMES[0]}'")
    page.focus("#detail-log")
    page.keyboard.press("Space")
    page.wait_for_selector("#detail-plot .mark-line")
    numbers = page.inner_text("#detail-numbers")
    assert "σ, largest first" in numbers
    assert "strength" in numbers
    assert "energy, full" in numbers


def test_modules_are_paged_ordered_found_and_picked(opened: Opened, pages: Path) -> None:
    page = opened.open(pages / "repair.html")
    assert page.inner_text("#spectra-where") == "1 to 24 of 30 modules"
    page.click("#spectra-on")
    until(page, "document.getElementById('spectra-where').textContent.startsWith('25 to 30')")
    assert page.is_disabled("#spectra-on")
    page.fill("#spectra-find", "layers.7.")
    until(page, "document.getElementById('spectra-where').textContent.startsWith('1 to 3 of 3')")
    page.select_option("#spectra-order", "model")
    until(page, "document.querySelector('#spectra-all svg')?.textContent.includes('7 v_proj')")
    page.locator("#spectra-all .mark-rect.role-mark path").last.click()
    until(page, "document.getElementById('detail-name').textContent === 'model.layers.7.v_proj'")
    page.locator("#detail-plot .layer_2_marks path").first.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "7.v_proj, σ1" in page.inner_text("#vg-tooltip-element")
    page.fill("#spectra-find", "nothing is called so")
    until(page, "document.getElementById('spectra-where').textContent.startsWith('No module')")


def test_the_map_switches_measure_and_look(opened: Opened, pages: Path) -> None:
    page = opened.open(pages / "repair.html")
    assert page.is_hidden("#heat-look"), "how far a module moved has one number"
    for measure in ("strength σ(W)/σ(ΔW)", "alignment with W", "energy, full"):
        page.select_option("#heat-measure", label=measure)
        for look in ("before", "after", "change"):
            page.select_option("#heat-look", look)
            until(page, f"document.querySelector('[aria-label^=\"{measure}, {look}\"]') !== null")
            until(page, "document.querySelectorAll('#heat-plot .mark-rect.role-mark path').length === 30")
    assert "-" in page.inner_text("#heat-key")
    page.locator(CELLS).first.click()
    until(page, "document.getElementById('detail-name').textContent.includes('layers')")


def test_markup_in_names_stays_text(opened: Opened, pages: Path) -> None:
    page = opened.open(pages / "hostile.html")
    assert page.locator("img").count() == 0
    assert MARKUP in page.inner_text("#detail-name")
    assert MARKUP in page.locator("#detail-module option").first.inner_text()
    page.locator("#detail-plot .layer_2_marks path").first.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "<script>" in page.inner_text("#vg-tooltip-element")
    assert page.locator("#vg-tooltip-element :is(script, img)").count() == 0


def test_without_scripts_the_still_pictures_stay(browser: Any, pages: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((pages / "repair.html").as_uri())
    assert page.locator(".multiples svg").count() == 24
    assert page.locator("svg.heat").is_visible()
    assert page.locator(".drawn").first.is_hidden()
    context.close()


def test_narrow_pages_do_not_scroll_sideways(opened: Opened, pages: Path) -> None:
    page = opened.page
    page.set_viewport_size({"width": 360, "height": 740})
    opened.open(pages / "repair.html")
    page.set_viewport_size({"width": 320, "height": 740})
    until(page, "document.documentElement.scrollWidth <= 320")


def test_it_prints(opened: Opened, pages: Path) -> None:
    opened.page.emulate_media(color_scheme="dark")
    page = opened.open(pages / "repair.html")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".controls:visible").count() == 0
    printed = page.pdf()
    assert printed.startswith(b"%PDF")
    assert len(printed) > 20_000


def test_the_service_lets_its_own_scripts_run_and_no_other(opened: Opened, pages: Path) -> None:
    """Under the header that the service sends; here a browser's route stands for the network alone."""
    from service.api.report import _POLICY

    html = (pages / "repair.html").read_text(encoding="utf-8")
    planted = html.replace("</main>", "</main><script>document.title = 'ran'</script>")
    headers = {"Content-Security-Policy": _POLICY, "Content-Type": "text/html; charset=utf-8"}
    page = opened.page
    page.route("**/report", lambda route: route.fulfill(body=planted, headers=headers))
    page.goto("http://report.test/report")
    page.wait_for_selector(DRAWN, state="attached")
    assert page.title() != "ran"
    assert [text for text in opened.said if "Content Security Policy" in text]
    opened.said.clear()
    opened.asked[:] = ["file:"]
