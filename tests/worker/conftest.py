"""A bench for each test, on the emptied server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.worker import Bench


@pytest.fixture
def bench(tmp_path: Path, broker_url: str) -> Iterator[Bench]:
    bench = Bench(tmp_path, broker_url)
    yield bench
    bench.close()
