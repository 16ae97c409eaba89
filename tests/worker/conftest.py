"""A bench for each test, on the emptied server, and settings of a worker without one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.worker import Bench
from worker.settings import WorkerSettings


@pytest.fixture
def bench(tmp_path: Path, broker_url: str) -> Iterator[Bench]:
    bench = Bench(tmp_path, broker_url)
    yield bench
    bench.close()


@pytest.fixture
def own_settings(tmp_path: Path, broker_url: str) -> WorkerSettings:
    """Settings for work that this process does itself."""
    return WorkerSettings(**_places(tmp_path, broker_url))


@pytest.fixture
def io_settings(hub_settings: WorkerSettings, tmp_path: Path, broker_url: str) -> WorkerSettings:
    """The same, with a hub."""
    return hub_settings.model_copy(update=_places(tmp_path, broker_url))


def _places(folder: Path, broker_url: str) -> dict[str, Any]:
    return {
        "broker_url": broker_url,
        "storage_url": (folder / "blobs").as_uri(),
        "work_dir": folder / "work",
    }
