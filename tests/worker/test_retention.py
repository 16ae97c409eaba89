"""Expiry as a running worker does it."""

from pathlib import Path

import pytest

from benchmarks.faults.adapters import make_adapter
from tests.fixtures.worker import Bench, wait_for

pytestmark = pytest.mark.e2e


def test_a_worker_removes_what_was_kept_long_enough(bench: Bench, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    ended = bench.submit(adapter, send=False)
    bench.store.request_cancel(ended.id)
    waiting = bench.submit(adapter, send=False, phase_queue="train")
    with bench.worker(["io"], LORAMEND_RETENTION_SECONDS="0.01"):
        wait_for(lambda: bench.store.get(ended.id) is None, what="the expiry")
    assert bench.store.get(waiting.id) is not None
    assert set(waiting.blobs()) == set(bench.storage.sizes())
