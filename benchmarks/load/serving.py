"""A real service for the benchmark: `loramend serve` on a free loopback port, in a folder of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from loramend.cli.datafolder import noted_broker
from service.jobs.connect import redis_from_url
from service.jobs.keys import KeyStore


@dataclass(frozen=True)
class Service:
    """A running service: where it listens, its folder, and the process of its API."""

    url: str
    data: Path
    api: psutil.Process

    def make_keys(self, count: int) -> list[str]:
        """New API keys, each of an owner of its own."""
        broker = noted_broker(self.data)
        assert broker is not None, "it runs"
        with redis_from_url(broker) as client:
            store = KeyStore(client)
            return [store.create(f"client{number}", ["read", "submit"]).key for number in range(count)]


@contextmanager
def serving(data: Path, **env: str) -> Iterator[Service]:
    """Runs for as long as the block. What it says on stderr goes to this process's."""
    command = [sys.executable, "-m", "loramend.cli.main", "serve"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--data", str(data), "--json"],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said:
            raise RuntimeError(f"loramend serve ended with code {process.wait()}")
        yield Service(json.loads(said)["url"], data, _api_of(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=90)


def _api_of(pid: int) -> psutil.Process:
    children = psutil.Process(pid).children()
    (api,) = (child for child in children if child.cmdline()[-2:] == ["-m", "service"])
    return api
