"""What a user does on the page."""

import base64
from pathlib import Path
from typing import Any

from tests.service.api.adapters import folder, tar_gz


def open_page(page: Any, url: str, fragment: str = "") -> None:
    """The page, once it has the methods."""
    page.goto(f"{url}/{fragment}")
    page.wait_for_selector("#steps > li" if not fragment else "h1:visible")


def drop(page: Any, *files: tuple[str, bytes]) -> None:
    """Files dropped on the page, as from a file manager."""
    given = [[name, base64.b64encode(content).decode()] for name, content in files]
    transfer = page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, content] of files) {
                const bytes = Uint8Array.from(atob(content), character => character.charCodeAt(0));
                transfer.items.add(new File([bytes], name));
            }
            return transfer;
        }""",
        given,
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def drop_adapter(page: Any, adapter: Path | None = None) -> None:
    """An adapter as .tar.gz; a small one unless a folder is given."""
    files = folder() if adapter is None else {file.name: file.read_bytes() for file in adapter.iterdir()}
    drop(page, ("adapter.tar.gz", tar_gz(files)))


def only_steps(page: Any, *types: str) -> None:
    """These steps in place of the recommended ones."""
    while page.locator("#steps > li").count():
        page.locator("#steps > li").first.get_by_role("button", name="Remove").click()
    for name in types:
        page.select_option("#method", name)
        page.click("#add-step")


def submit(page: Any) -> str:
    """The ID of the job that the page goes to."""
    page.click("#submit")
    page.wait_for_url("**/#/jobs/*")
    page.wait_for_selector("#job .status")
    return str(page.url).rpartition("/")[2]


def await_status(page: Any, status: str, seconds: float = 60) -> None:
    page.wait_for_selector(f"#job .status.{status}", timeout=1000 * seconds)


def violations(page: Any) -> list[str]:
    """What axe finds wrong on the page as it is, best practices included."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]
