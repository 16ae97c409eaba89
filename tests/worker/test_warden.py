"""What the parent sees to when its child does not, or is dead."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from loramend.contracts.job import JobResult
from service.jobs.lease import Lease, LeaseLost
from service.jobs.records import JobRecord
from tests.service.jobs.jobs import new_record
from worker import warden as warden_module
from worker.memory import out_of_memory_kills, resident_bytes
from worker.process import WorkerProcess
from worker.settings import WorkerSettings
from worker.tools import Tools, open_tools
from worker.warden import Warden


class Child(WorkerProcess):
    """Of a worker whose child is another program, busy with something that takes no notice."""

    def __init__(self) -> None:
        super().__init__(["spectral"])
        self.program = subprocess.Popen(["sleep", "600"])

    def take_up(self, tools: Tools, record: JobRecord) -> Lease:
        lease = tools.store.acquire(record.id, self.name, 30)
        assert lease is not None
        with self.holding(lease):
            self._pid.value = self.program.pid
            fence: int = self._fence.value
        self._fence.value = fence
        return lease

    @property
    def killed(self) -> bool:
        try:
            return self.program.wait(timeout=0.05) == -9
        except subprocess.TimeoutExpired:
            return False


@pytest.fixture
def tools(own_settings: WorkerSettings, redis_client: "redis.Redis") -> Tools:
    return open_tools(own_settings)


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    with child.program:
        yield child
        child.program.kill()


@pytest.fixture
def record(tools: Tools) -> JobRecord:
    return tools.store.create(new_record())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warden_module, "_READ_SECONDS", 0.0)
    monkeypatch.setattr(warden_module, "_PATIENCE_SECONDS", 0.1)


def warden(tools: Tools, settings: WorkerSettings, child: WorkerProcess, **changed: object) -> Warden:
    return Warden(tools, settings.model_copy(update=changed), child)


def warned(tools: Tools, settings: WorkerSettings, child: Child, record: JobRecord) -> tuple[Warden, Lease]:
    """A warden that has seen that its child's job is to be canceled, and the child's lease."""
    watching = warden(tools, settings, child)
    lease = child.take_up(tools, record)
    tools.store.request_cancel(record.id)
    watching.look()
    return watching, lease


def now(tools: Tools, record: JobRecord) -> JobRecord:
    found = tools.store.get(record.id)
    assert found is not None
    return found


def code(record: JobRecord) -> str | None:
    return record.error.code if record.error else None


def test_a_working_child_is_left_alone(
    tools: Tools, own_settings: WorkerSettings, child: Child, record: JobRecord
) -> None:
    watching = warden(tools, own_settings, child)
    watching.look()
    child.take_up(tools, record)
    for _ in range(3):
        watching.look()
    assert not child.killed
    assert now(tools, record).status == "running"


def test_a_child_that_does_not_hear_of_a_cancel_is_killed_after_its_time(
    tools: Tools, own_settings: WorkerSettings, child: Child, record: JobRecord
) -> None:
    watching, lease = warned(tools, own_settings, child, record)
    assert now(tools, record).status == "running"
    time.sleep(0.11)
    watching.look()
    assert child.killed
    assert now(tools, record).status == "canceled"
    with pytest.raises(LeaseLost):
        tools.store.finish(lease, "succeeded", result=JobResult(report_digest="f" * 64))


def test_a_job_that_ends_in_time_keeps_its_end(
    tools: Tools, own_settings: WorkerSettings, child: Child, record: JobRecord
) -> None:
    watching, lease = warned(tools, own_settings, child, record)
    tools.store.finish(lease, "succeeded", result=JobResult(report_digest="f" * 64))
    child._fence.value = 0
    time.sleep(0.11)
    watching.look()
    assert not child.killed
    assert now(tools, record).status == "succeeded"


def test_a_child_that_does_not_hand_back_is_killed(
    tools: Tools, own_settings: WorkerSettings, child: Child, record: JobRecord
) -> None:
    watching = warden(tools, own_settings, child)
    child.take_up(tools, record)
    child.stop_in(0)
    time.sleep(0.01)
    watching.look()
    time.sleep(0.11)
    watching.look()
    assert child.killed
    assert (now(tools, record).status, now(tools, record).attempts) == ("queued", 0)


def test_a_child_whose_job_was_deleted_is_killed(
    tools: Tools, own_settings: WorkerSettings, child: Child, record: JobRecord
) -> None:
    watching = warden(tools, own_settings, child)
    child.take_up(tools, record)
    tools.store.delete(record.id)
    watching.look()
    time.sleep(0.11)
    watching.look()
    assert child.killed


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("phase_seconds", "phase_timed_out"), ("job_seconds", "timed_out"), ("memory_bytes", "out_of_memory")],
)
def test_limits(
    tools: Tools,
    own_settings: WorkerSettings,
    child: Child,
    record: JobRecord,
    limit: str,
    expected: str,
) -> None:
    watching = warden(tools, own_settings, child, **{limit: 1e-3})
    child.take_up(tools, record)
    time.sleep(0.01)
    watching.look()
    assert child.killed
    assert now(tools, record).status == "failed"
    assert code(now(tools, record)) == expected


@pytest.mark.parametrize(("kills", "expected"), [(0, "worker_lost"), (1, "out_of_memory")])
def test_a_death_is_told_at_once_with_its_cause(
    tools: Tools,
    own_settings: WorkerSettings,
    child: Child,
    record: JobRecord,
    monkeypatch: pytest.MonkeyPatch,
    kills: int,
    expected: str,
) -> None:
    counted = [3]
    monkeypatch.setattr(warden_module, "out_of_memory_kills", lambda: counted[0])
    watching = warden(tools, own_settings, child)
    child.program.kill()
    child.program.wait()
    for attempt in (1, 2, 3):
        child.take_up(tools, record)
        child._pid.value = child.program.pid
        if attempt == 1:
            watching._held, watching._kills = child.held, counted[0]
            counted[0] += kills
        watching.look()
        assert child.held is None
        assert now(tools, record).attempts == attempt
    assert code(now(tools, record)) == expected


def test_memory_is_what_the_process_alone_takes(tmp_path: Path) -> None:
    script = "x = bytearray(64 << 20); x[::4096] = b'1' * len(x[::4096]); print(flush=True); input()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 64 << 20 < resident_bytes(process.pid) < 128 << 20
        process.kill()
    assert resident_bytes(process.pid) == 0
    assert out_of_memory_kills() >= 0
