"""`loramend serve` as a child process, for the end-to-end tests."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class Served:
    """A running service and its process."""

    url: str
    data: Path
    process: subprocess.Popen[str]


def free_port() -> int:
    """A loopback port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(
    data: Path,
    *,
    model_roots: Sequence[Path] = (),
    env: dict[str, str] | None = None,
    timeout: float = 60,
    port: int | None = None,
) -> Iterator[Served]:
    """Start `loramend serve` with a data folder, wait until it is ready, and stop it with TERM.

    A free port unless one is given, as for a server that comes back where it was.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "loramend.cli.main", "serve", "--port", str(port), "--data", str(data)]
    for root in model_roots:
        command += ["--model-root", str(root)]
    log = (data.parent / f"{data.name}.serve.log").open("w+")
    process = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}), stdout=log, stderr=log, text=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + timeout
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise RuntimeError(f"loramend serve was not ready:\n{log.read()}")
            time.sleep(0.1)
        yield Served(url, data, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
        log.close()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).is_success
    except httpx.TransportError:
        return False
