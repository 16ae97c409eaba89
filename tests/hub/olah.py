"""olah, an independent pull-only hub, as a process of its own."""

import contextlib
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.hub.server import wait_until


@contextlib.contextmanager
def olah(mirrors: Path, work: Path) -> Iterator[str]:
    """Run olah offline over the git repositories under `mirrors`; yields its endpoint.

    Its program is looked up in LORAMEND_TEST_OLAH, or else in .venv-olah beside the project's files.
    """
    project = Path(__file__).parents[2]
    program = Path(os.environ.get("LORAMEND_TEST_OLAH") or project / ".venv-olah" / "bin" / "olah-cli")
    assert program.exists(), (
        f"{program} is missing: run `make .venv-olah/.installed`, or set LORAMEND_TEST_OLAH to olah-cli"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    work.mkdir(parents=True, exist_ok=True)
    config = work / "olah.toml"
    config.write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{work}/repos"\n'
        f'mirrors-path = ["{mirrors}"]\n'
        f'mirror-netloc = "127.0.0.1:{port}"\nmirror-lfs-netloc = "127.0.0.1:{port}"\n'
        "[accessibility]\noffline = true\n"
    )
    with (work / "olah.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--config", config, "--log-path", work / "logs"], cwd=work, stdout=log, stderr=log
        )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(endpoint), lambda: process.poll() is None, f"olah (see {work}/olah.log)")
        yield endpoint
    finally:
        process.terminate()
        process.wait(timeout=10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
