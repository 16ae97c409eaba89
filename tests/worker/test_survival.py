"""Jobs survive lost messages, killed workers and shutdowns."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.faults.adapters import LONG_STEPS, make_adapter, make_long_adapter
from loramend.contracts.request import Source
from service.jobs.records import JobRecord
from tests.fixtures.worker import LEASE_SECONDS, Bench, wait_for

pytestmark = pytest.mark.e2e
DULL_STEPS = [{"type": "random_subspace", "k": 1024, "form": "direction"}] * 16


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_long_adapter(tmp_path_factory.mktemp("adapters") / "adapter")


@pytest.fixture(scope="module")
def dull(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With DULL_STEPS, seconds between one sign of life and the next."""
    return make_adapter(tmp_path_factory.mktemp("adapters") / "dull", modules=1, size=16384)


def weights(record: JobRecord) -> str:
    assert record.status == "succeeded", record.error
    return record.output["adapter_model.safetensors"].sha256


def test_a_duplicate_delivery_leaves_the_job_to_who_has_it(bench: Bench, adapter: Path) -> None:
    with bench.worker(["spectral"]), bench.worker(["spectral"]):
        record = bench.submit(adapter, steps=LONG_STEPS)
        for _ in range(3):
            bench.dispatcher.send(record.id, "spectral")
        ended = bench.ended(record)
        bench.dispatcher.send(record.id, "spectral")
        wait_for(
            lambda: bench.redis.hlen("loramend:mq:unacked") == bench.redis.llen("loramend:mq:spectral") == 0,
            what="every message to be acknowledged",
        )
    assert ended.attempts == 1
    assert bench.statuses(record) == ["queued", "running", "succeeded"]
    assert bench.get(record) == ended


def test_a_killed_child_and_a_killed_worker_lose_no_job(bench: Bench, adapter: Path) -> None:
    with bench.worker() as first:
        undisturbed = bench.ended(bench.submit(adapter, steps=LONG_STEPS))
        record = bench.submit(adapter, steps=LONG_STEPS)
        bench.until_phase(record, "repair")
        first.child().kill()
        bench.until_attempt(record, 2)
        bench.until_phase(record, "repair")
        child = first.child()
        leftover = [folder.name for folder in bench.work_dir.iterdir()]
        assert any(name.startswith(record.id) for name in leftover)
        first.process.kill()
        first.process.wait()
        # The kernel ends the child with its parent.
        wait_for(lambda: not psutil.pid_exists(child.pid) or child.status() == "zombie", 5, "the child's end")
    with bench.worker():
        ended = bench.ended(record)
        wait_for(lambda: not list(bench.work_dir.iterdir()), 5, "the leftovers to go")
    assert ended.attempts == 3
    assert weights(ended) == weights(undisturbed)
    assert bench.statuses(record)[-1] == "succeeded"


def test_a_job_that_kills_its_workers_is_given_up(bench: Bench, adapter: Path) -> None:
    with bench.worker(LORAMEND_MAX_ATTEMPTS="2") as worker:
        record = bench.submit(adapter, steps=LONG_STEPS)
        for attempt in (1, 2):
            bench.until_attempt(record, attempt)
            worker.child().kill()
        ended = bench.ended(record)
        wait_for(
            lambda: bench.redis.hlen("loramend:mq:unacked") == bench.redis.llen("loramend:mq:spectral") == 0,
            what="its message to be gone",
        )
        assert worker.process.poll() is None
    assert ended.error is not None
    assert ended.error.code == "worker_lost"
    assert ended.attempts == 2


def test_term_hands_the_job_back_and_another_worker_ends_it(bench: Bench, adapter: Path) -> None:
    with bench.worker() as first:
        record = bench.submit(adapter, steps=LONG_STEPS)
        bench.until_phase(record, "repair")
        started = time.monotonic()
        assert first.terminate() == 0
        assert time.monotonic() - started < 10
        assert bench.store.workers() == []
    waiting = bench.get(record)
    assert (waiting.status, waiting.attempts) == ("queued", 0)
    with bench.worker():
        ended = bench.ended(record)
    assert (ended.status, ended.attempts) == ("succeeded", 1)
    assert bench.statuses(record) == ["queued", "running", "queued", "running", "succeeded"]


def test_term_lets_a_job_end_that_is_nearly_done(bench: Bench, adapter: Path) -> None:
    with bench.worker(LORAMEND_SHUTDOWN_SECONDS="60") as worker:
        record = bench.submit(adapter, steps=LONG_STEPS)
        bench.until_phase(record, "repair")
        assert worker.terminate() == 0
    assert bench.statuses(record) == ["queued", "running", "succeeded"]


def test_a_job_that_takes_too_long_is_stopped(bench: Bench) -> None:
    """The hub takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with bench.worker(["io"], LORAMEND_PHASE_SECONDS="1", LORAMEND_HUB_ENDPOINT=endpoint):
            record = bench.submit(None, phase_queue="io", source=Source(hub_id="someone/adapter"))
            ended = bench.ended(record, 10)
    assert ended.error is not None
    assert ended.error.code == "phase_timed_out"


def test_a_cancel_does_not_wait_for_the_end_of_a_long_module(bench: Bench, dull: Path) -> None:
    with bench.worker() as worker:
        record = bench.submit(dull, steps=DULL_STEPS)
        bench.until_attempt(record, 1)
        wait_for(lambda: list(bench.work_dir.iterdir()), what="the work to begin")
        time.sleep(2)
        bench.store.request_cancel(record.id)
        assert bench.ended(record).status == "canceled"
        assert bench.ended(bench.submit(dull)).status == "succeeded"
        wait_for(lambda: not list(bench.work_dir.iterdir()), 10, "the work folder to go")
        assert worker.process.poll() is None


def test_term_does_not_wait_for_the_end_of_a_long_module(bench: Bench, dull: Path) -> None:
    with bench.worker() as worker:
        record = bench.submit(dull, steps=DULL_STEPS)
        bench.until_attempt(record, 1)
        assert worker.terminate() == 0
    waiting = bench.get(record)
    assert (waiting.status, waiting.attempts) == ("queued", 0)


@pytest.mark.parametrize(
    ("limit", "value", "code"),
    [
        ("LORAMEND_MEMORY_BYTES", "50000000", "out_of_memory"),
        ("LORAMEND_PHASE_SECONDS", "1", "phase_timed_out"),
        ("LORAMEND_JOB_SECONDS", "1", "timed_out"),
    ],
)
def test_limits_of_memory_and_time(bench: Bench, dull: Path, limit: str, value: str, code: str) -> None:
    with bench.worker(**{limit: value}) as worker:
        ended = bench.ended(bench.submit(dull, steps=DULL_STEPS), 30)
        assert worker.process.poll() is None
    assert ended.error is not None
    assert (ended.status, ended.attempts, ended.error.code) == ("failed", 1, code)


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with memory for a child to take a job and little more, where one can be made here."""
    folder = Path(f"/sys/fs/cgroup/memory/loramend-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(340 << 20))
    except OSError:
        pytest.skip("no control group can be made here")
    yield folder
    wait_for(lambda: not (folder / "tasks").read_text(), 10, "the group to be empty")
    folder.rmdir()


def test_a_process_that_the_kernel_kills_for_want_of_memory(
    bench: Bench, dull: Path, small_group: Path
) -> None:
    with bench.worker(LORAMEND_MAX_ATTEMPTS="2") as worker:
        for process in (worker.process.pid, worker.child().pid):
            (small_group / "cgroup.procs").write_text(str(process))
        ended = bench.ended(bench.submit(dull, steps=DULL_STEPS))
        assert worker.process.poll() is None
    assert ended.error is not None
    assert (ended.status, ended.attempts, ended.error.code) == ("failed", 2, "out_of_memory")


def test_results_are_kept_in_an_object_store(
    tmp_path: Path, broker_url: str, s3_bucket: tuple[str, dict[str, Any]], adapter: Path
) -> None:
    bucket, options = s3_bucket
    bench = Bench(tmp_path, broker_url, storage_url=f"{bucket}/jobs", storage_options=options)
    with bench.worker(["spectral"]):
        record = bench.submit(adapter)
        ended = bench.ended(record)
    assert ended.status == "succeeded", ended.error
    bench.storage.fetch(ended.output["adapter_model.safetensors"], tmp_path / "adapter_model.safetensors")
    bench.store.blobs.delete(bench.store.delete(record.id), bench.storage)
    assert all(bench.storage.exists(ref.sha256) is None for ref in ended.blobs().values())
    bench.close()


def test_a_worker_that_wakes_up_too_late_writes_nothing(bench: Bench, adapter: Path) -> None:
    with bench.worker() as first:
        record = bench.submit(adapter, steps=LONG_STEPS)
        bench.until_phase(record, "repair")
        sleeper = first.child()
        os.kill(sleeper.pid, signal.SIGSTOP)
        os.kill(first.process.pid, signal.SIGSTOP)
        with bench.worker():
            ended = bench.ended(record)
            assert (ended.status, ended.attempts) == ("succeeded", 2)
            events = bench.store.events(record.id)
            os.kill(sleeper.pid, signal.SIGCONT)
            os.kill(first.process.pid, signal.SIGCONT)
            wait_for(lambda: "taken away" in first.log.read_text(), 10, "the sleeper to notice")
        assert first.terminate() == 0
    assert bench.get(record) == ended
    assert bench.store.events(record.id) == events


def test_the_lease_is_kept_by_a_working_child(bench: Bench, adapter: Path) -> None:
    """A job longer than its lease, seen by another worker's reaper all the while, is not taken away."""
    with bench.worker(["spectral"]), bench.worker(["io"]):
        ended = bench.ended(bench.submit(adapter, steps=LONG_STEPS * 4))
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert (ended.finished_at - ended.started_at).total_seconds() > LEASE_SECONDS
    assert (ended.status, ended.attempts) == ("succeeded", 1)
