"""The service as processes of its own, each of which can be killed and comes back."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.outside import Outside
from loramend.cli.broker import Broker, embedded_broker
from loramend.cli.datafolder import DataFolder, open_data_folder
from loramend.cli.supervisor import Program, Supervisor
from service.jobs.connect import redis_from_url
from service.jobs.storage import Storage
from service.jobs.store import JobStore

LEASE_SECONDS = 2.0
GRACE_SECONDS = 2.0
MEMORY_BYTES = 1300 << 20
API = "api"
WORKERS = ("worker-1", "worker-2")
BROKER = "valkey"
_TICK = 0.02
# An import of torch on a busy machine, and what a crash loop may wait before its next start.
START_SECONDS = 180.0


class Rig:
    """Broker with its append-only file, API and workers in one data folder, looked after as by
    `loramend serve`, with short leases."""

    def __init__(self, folder: DataFolder, broker: Broker, outside: Outside) -> None:
        self.folder = folder
        self.outside = outside
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ended: list[str] = []
        settings = {
            "LORAMEND_BROKER_URL": broker.url,
            "LORAMEND_STORAGE_URL": f"file://{folder.blobs}",
            "LORAMEND_SECRET_KEY": folder.secret_key(),
            "LORAMEND_WORK_DIR": str(folder.work),
            "LORAMEND_CACHE_DIR": str(folder.cache),
            "LORAMEND_PORT": str(self.port),
            **outside.settings(),
            "LORAMEND_LEASE_SECONDS": str(LEASE_SECONDS),
            "LORAMEND_REAP_SECONDS": "0.3",
            "LORAMEND_RESEND_SECONDS": "3",
            "LORAMEND_PROGRESS_SECONDS": "0.1",
            "LORAMEND_MEMORY_BYTES": str(MEMORY_BYTES),
            "LORAMEND_SHUTDOWN_SECONDS": str(int(GRACE_SECONDS)),
            "TMPDIR": str(folder.work),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self._supervisor = Supervisor(
            folder.logs, {**os.environ, **settings}, say=self.ended.append, first_delay=0.2
        )
        python = (sys.executable, "-P", "-m")
        queues = ("worker", "--queues", "io,spectral,train")
        self._programs = {
            BROKER: broker.program,
            API: Program(API, (*python, "service"), stop_after=15.0),
            **{name: Program(name, (*python, *queues), stop_after=30.0) for name in WORKERS},
        }
        self._broker = broker
        self.broker_url = broker.url
        self.redis = redis_from_url(broker.url)
        self.store = JobStore(self.redis)
        self.storage = Storage(f"file://{folder.blobs}")

    def start(self) -> None:
        """Returns once all of it answers."""
        self._supervisor.start(self._programs[BROKER])
        self.wait(self._broker.answers, START_SECONDS, "the broker")
        for name in (*WORKERS, API):
            self._supervisor.start(self._programs[name])
        self.wait(self.serves, START_SECONDS, "API and workers")

    def stop(self) -> None:
        """Stop all of it in order."""
        for names in ([API], [*WORKERS], [BROKER]):
            self._supervisor.stop(names)
        self.redis.close()

    def serves(self) -> bool:
        """Whether the API takes connections and every worker has told that it lives."""
        pids = self._supervisor.pids()
        named = [name for name in self.store.workers() if any(f"-{pids.get(w)}-" in name for w in WORKERS)]
        return _listens(self.port) and len(named) == len(WORKERS)

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Tend the processes until the condition holds. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:.0f} s for {what}")
            self._supervisor.tend()
            time.sleep(_TICK)

    def pause(self, seconds: float) -> None:
        """Tend the processes for that long."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= end, seconds + 60, "the time to pass")

    def kill(self, name: str, *, down: float = 0.0) -> None:
        """KILL to the process, which starts again after `down` seconds. Raises TimeoutError where one of its
        children outlives it."""
        pid = self._supervisor.pids().get(name)
        if pid is not None:
            children = _children(pid)
            os.kill(pid, signal.SIGKILL)
            self.wait(lambda: not any(map(_runs, children)), 10, f"{name}'s children to end")
        self._restart(name, down)

    def terminate(self, name: str) -> float:
        """TERM to the process, which starts again once it has ended. Returns after how many seconds that
        was."""
        begun = time.monotonic()
        pid = self._supervisor.pids()[name]
        os.kill(pid, signal.SIGTERM)
        self.wait(lambda: not _runs(pid), 60, f"{name} to stop")
        took = time.monotonic() - begun
        self._restart(name)
        return took

    def kill_child(self, name: str) -> bool:
        """KILL to the process in which that worker runs its jobs; False where it has none just now."""
        pid = self._supervisor.pids().get(name)
        children = _children(pid) if pid is not None else []
        for child in children:
            os.kill(child, signal.SIGKILL)
        return bool(children)

    def worker_of(self, job_id: str) -> str | None:
        """The program that holds the job's lease."""
        held = str(self.redis.hget(f"loramend:job:{job_id}", "worker") or "")
        pids = self._supervisor.pids()
        return next((name for name in WORKERS if name in pids and f"-{pids[name]}-" in held), None)

    def _restart(self, name: str, down: float = 0.0) -> None:
        self._supervisor.stop([name], hurry=lambda: True)
        if down:
            self.pause(down)
        self._supervisor.start(self._programs[name])


@contextmanager
def running(root: Path, outside: Outside) -> Iterator[Rig]:
    """A rig in that folder, for as long as the block runs."""
    with open_data_folder(root) as folder, embedded_broker(folder) as broker:
        rig = Rig(folder, broker, outside)
        try:
            rig.start()
            yield rig
        finally:
            rig.stop()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _runs(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
