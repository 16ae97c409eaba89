"""The web page in a real browser, before a real server and worker."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load, save

from benchmarks.faults.adapters import LONG_STEPS, make_long_adapter
from tests.models import Trio
from tests.serve import Served, free_port, serving
from tests.service.api.adapters import folder, tar_gz, weights, zipped
from tests.web.acts import await_status, drop, drop_adapter, only_steps, open_page, submit, violations

pytestmark = [pytest.mark.e2e, pytest.mark.browser]


def test_from_drop_to_report_and_pulled_adapter(
    page: Any, server: Served, trio: Trio, tmp_path: Path
) -> None:
    open_page(page, server.url)
    drop_adapter(page, trio.adapter)
    page.fill("#base", str(trio.base))
    page.fill("#aligned", str(trio.aligned))
    assert page.inner_text("#step-0-title") == "1. csu"
    page.get_by_text("Parameters (8)").click()
    page.fill("#step-0-k", "3")
    job = submit(page)
    await_status(page, "succeeded")
    page.locator("#job").get_by_text("Ran csu").wait_for()  # the report comes after the status
    asked = httpx.get(f"{server.url}/jobs/{job}").json()
    assert (asked["threat"], asked["steps"][0]["k"]) == ("poisoned_adapter", 3)

    with page.expect_popup() as popup:
        page.get_by_role("link", name="Read the whole report").click()
    popup.value.wait_for_selector("h1")
    assert popup.value.inner_text("h1") == "Repair report"
    popup.value.wait_for_selector("html[data-drawn=yes]", state="attached")

    page.get_by_role("button", name="Copy: With loramend").click()
    page.get_by_text("Copied.").wait_for()
    command = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert command[:2] == ["loramend", "pull"]
    done = subprocess.run(
        [sys.executable, "-m", "loramend.cli.main", *command[1:]],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load((tmp_path / "repaired" / "adapter_model.safetensors").read_bytes())


def test_the_steps_follow_what_is_given(page: Any, server: Served) -> None:
    open_page(page, server.url)

    def titles() -> list[str]:
        return [title.split(". ")[1] for title in page.locator("#steps h2").all_inner_texts()]

    assert titles() == ["intruders"]
    page.check("[value=poisoned_base]")
    assert titles() == ["rescale"]
    page.set_input_files(
        "#clean-file", {"name": "c.jsonl", "mimeType": "application/jsonl", "buffer": b"{}\n"}
    )
    assert titles() == ["rora"]
    page.check("[value=poisoned_adapter]")
    assert titles() == ["clean_subspace", "rora"]
    page.get_by_role("button", name="Down: step 1, clean_subspace").click()
    assert titles() == ["rora", "clean_subspace"]
    page.get_by_role("button", name="Back to the recommended steps").click()
    assert titles() == ["clean_subspace", "rora"]


def test_weights_and_config_one_after_the_other(page: Any, server: Served) -> None:
    open_page(page, server.url)
    files = folder()
    drop(page, ("adapter_model.safetensors", files["adapter_model.safetensors"]))
    drop(page, ("adapter_config.json", files["adapter_config.json"]))
    only_steps(page, "shrink")
    submit(page)
    await_status(page, "succeeded")


def test_a_refused_file_is_told_beside_the_file(page: Any, server: Served) -> None:
    open_page(page, server.url)
    page.click("#submit")
    assert "Choose a file" in page.inner_text("#source-problem")
    drop(page, ("adapter_model.bin", b"\x80\x02}q\x00."))
    page.click("#submit")
    page.get_by_text("Pickled weights are never opened.").wait_for()
    assert page.evaluate("document.activeElement.id") == "files"
    assert page.get_attribute("#files", "aria-invalid") == "true"
    assert violations(page) == []
    drop(page, ("adapter.zip", zipped(folder(peft_type="IA3"))))
    assert not page.is_visible("#source-problem")
    page.click("#submit")
    page.locator("#source-problem").get_by_text("Not a LoRA adapter").wait_for()


def test_what_a_hostile_adapter_says_is_text(page: Any, server: Served) -> None:
    open_page(page, server.url)
    name = "<img src=x onerror=alert(1)>.lora_A.weight"
    tensors = load(weights()) | {name: np.zeros((4, 16), np.float32)}
    drop(page, ("a.tar.gz", tar_gz(folder() | {"adapter_model.safetensors": save(tensors)})))
    page.click("#submit")
    page.locator("#source-problem").get_by_text("<img src=x").wait_for()
    assert page.locator("img").count() == 0


def test_a_refused_parameter_is_told_beside_it(page: Any, server: Served) -> None:
    open_page(page, server.url)
    drop_adapter(page)
    only_steps(page, "shrink", "csu")
    page.fill("#step-0-factor", "much")
    page.click("#submit")
    page.wait_for_selector("#step-0-factor-problem:visible")
    assert "valid number" in page.inner_text("#step-0-factor-problem")
    assert page.evaluate("document.activeElement.id") == "step-0-factor"
    page.fill("#step-0-factor", "0.5")
    page.click("#submit")
    page.locator("#aligned-problem").get_by_text("csu reads the aligned model").wait_for()


def test_refused_text_is_told_beside_the_text(page: Any, server: Served) -> None:
    open_page(page, server.url)
    drop_adapter(page)
    broken = {"name": "clean.jsonl", "mimeType": "application/jsonl", "buffer": b'{"text": "a"}\nnot json\n'}
    page.set_input_files("#clean-file", broken)
    page.click("#submit")
    page.wait_for_selector("#clean-problem:visible")
    assert "clean.jsonl:1: The line has no label" in page.inner_text("#clean-problem")
    assert page.evaluate("document.activeElement.id") == "clean-file"


def test_a_hub_adapter_that_cannot_be_had(page: Any, server: Served) -> None:
    open_page(page, server.url)
    page.fill("#hub", "someone/adapter@v1")
    page.fill("#base", "org/model@main")
    page.fill("#clean-hub", "org/texts:train.jsonl")
    page.get_by_text("Names of its fields").first.click()
    page.fill("#clean-as-text", "sentence")
    job = submit(page)
    asked = httpx.get(f"{server.url}/jobs/{job}").json()
    assert asked["source"]["hub_id"] == "someone/adapter"
    assert (asked["source"]["revision"], asked["base"]["revision"]) == ("v1", "main")
    clean = asked["data"]["clean"]
    assert (clean["hub_id"], clean["file"], clean["fields"]) == (
        "org/texts",
        "train.jsonl",
        {"text": "sentence"},
    )
    await_status(page, "failed")
    page.get_by_role("alert").get_by_text("The Hub could not be reached").wait_for()


def long_job(url: str, folder: Path, *, modules: int = 300) -> str:
    """A repair that takes a while, submitted beside the page."""
    adapter = make_long_adapter(folder, modules=modules, rank=16)
    body = tar_gz({file.name: file.read_bytes() for file in adapter.iterdir()})
    request = {"steps": LONG_STEPS * 2}
    answer = httpx.post(f"{url}/repair", files={"adapter": body, "request": (None, json.dumps(request))})
    return str(answer.raise_for_status().json()["id"])


def test_cancel_from_the_job_and_from_the_list(page: Any, server: Served, tmp_path: Path) -> None:
    # Longer than the clicks take on any machine; both are canceled.
    first, second = (long_job(server.url, tmp_path / name, modules=2000) for name in ("one", "two"))
    open_page(page, server.url, f"#/jobs/{first}")
    page.locator("#job-doing", has_text=" of ").wait_for()
    assert violations(page) == []
    page.get_by_role("button", name="Cancel this job").click()
    await_status(page, "canceled")

    page.get_by_role("link", name="Jobs").click()
    page.get_by_role("button", name=f"Cancel job {second}").click()
    page.get_by_text(f"Job {second} is being canceled.").wait_for()
    page.select_option("#status", "canceled")
    page.locator("#jobs .status:not(.canceled)").first.wait_for(state="detached")
    page.locator(f"#jobs a[href='#/jobs/{first}']").wait_for()
    page.select_option("#kind", "inspect")
    page.get_by_text("No jobs here.").wait_for()

    page.goto(f"{server.url}/#/jobs/{first}")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete with all its files").click()
    page.wait_for_url("**/#/jobs")
    assert httpx.get(f"{server.url}/jobs/{first}").status_code == 404


def test_progress_goes_on_after_the_server_restarts(page: Any, tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path / "data", port=port) as served:
        job = long_job(served.url, tmp_path / "adapter")
        seen: list[str | None] = []
        page.on(
            "request",
            lambda request: (
                seen.append(request.headers.get("last-event-id")) if "/events" in request.url else None
            ),
        )
        open_page(page, served.url, f"#/jobs/{job}")
        page.locator("#job-doing", has_text=" of ").wait_for()
    page.get_by_text("Connection lost.").wait_for()
    with serving(tmp_path / "data", port=port):
        page.get_by_text("Connection lost.").wait_for(state="hidden", timeout=60_000)
        await_status(page, "succeeded", 120)
        page.get_by_role("link", name="Read the whole report").wait_for()
    assert seen[0] is None
    assert seen[-1] is not None


def test_signing_in(page: Any, browser: Any, tmp_path: Path) -> None:
    key = "a key of sixteen characters"
    env = {"LORAMEND_API_KEYS": key, "LORAMEND_REQUIRE_KEYS": "true"}
    with serving(tmp_path / "data", env=env) as served:
        page.goto(served.url)
        page.wait_for_selector("#sign-in-title:visible")
        assert violations(page) == []
        page.fill("#key", "lm_wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-problem:visible")
        page.fill("#key", key)
        page.keyboard.press("Enter")
        page.wait_for_selector("#steps > li")
        assert page.evaluate("[...Object.values(sessionStorage), localStorage.length]") == [key, 0]
        drop_adapter(page)
        only_steps(page, "shrink")
        submit(page)
        await_status(page, "succeeded")
        results_in_a_browser_with_a_key(page)
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_selector("#sign-in-title:visible")
        assert page.evaluate("sessionStorage.length") == 0
        assert page.context.cookies() == []


def results_in_a_browser_with_a_key(page: Any) -> None:
    """The browser itself opens the report and saves the archive; nothing but their paths is in an address."""
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    link = page.get_by_role("link", name="Read the whole report")
    # At first by the pass that came with the page, then by one that the click takes.
    for _ in range(2):
        with page.expect_popup() as popup:
            link.click()
        report = popup.value
        report.wait_for_selector("html[data-drawn=yes]", state="attached")
        assert report.inner_text("h1") == "Repair report"
        assert report.locator(".drawn svg:visible").count() >= 2
        assert report.evaluate("origin") == "null", "in an origin of its own"
        report.reload()
        report.wait_for_selector("html[data-drawn=yes]", state="attached")
        report.close()
        page.context.clear_cookies()
        page.evaluate("sessionStorage.removeItem('loramend-passes')")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the archive").click()
    assert download.value.suggested_filename.endswith(".tar.gz")
    assert Path(download.value.path()).stat().st_size > 1000
    assert page.evaluate("document.cookie") == ""
    assert {url.rpartition("/")[2] for url in asked} <= {"report", "adapter", "pass"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_a_narrow_screen_needs_no_scrolling(
    page: Any, server: Served, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})

    def check() -> None:
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360

    open_page(page, server.url)
    check()
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    only_steps(page, "rora", "shrink")
    check()
    drop_adapter(page)
    only_steps(page, "shrink")
    submit(page)
    await_status(page, "succeeded")
    page.wait_for_selector("#pull-command")
    check()
    page.get_by_role("link", name="Jobs").click()
    page.wait_for_selector("#jobs > li")
    check()


def test_the_keyboard_alone(page: Any, server: Served) -> None:
    open_page(page, server.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    page.get_by_role("link", name="Jobs").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#jobs-title:focus")
