"""The parent's eye on its child: what the child does not see to by itself, because it is busy, is too big or
is dead."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from loramend.contracts.errors import ErrorCode, JobError
from service.jobs.lease import LeaseLost
from service.jobs.records import JobRecord
from worker.memory import out_of_memory_kills, resident_bytes
from worker.process import Held, WorkerProcess
from worker.settings import WorkerSettings
from worker.tools import Tools

_LOG = logging.getLogger("worker.warden")
_LOOK_SECONDS = 0.1
# How often the job is read, and how long the child may take to stop by itself once it is to: together less
# than the two seconds in which a cancel has to come true.
_READ_SECONDS = 0.4
_PATIENCE_SECONDS = 1.0


class Warden:
    """A thread that ends a job which is to end and does not, in the store first and then its process.

    That is: canceled, to be handed back, over a limit of time or memory, or no longer this worker's. A child
    that died is told to the store at once, with the kernel's want of memory as its cause where that was it.
    """

    def __init__(self, tools: Tools, settings: WorkerSettings, process: WorkerProcess) -> None:
        self._tools = tools
        self._settings = settings
        self._process = process
        self._held: Held | None = None
        # Told before a job begins: a child may be killed before it is first looked at.
        self._kills = out_of_memory_kills()
        self._read_at = 0.0
        self._asked_at: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="warden", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                # The broker may be away for a while; the thread must outlive that.
                _LOG.warning("the warden could not look", exc_info=True)

    def look(self) -> None:
        """See to the child once."""
        held = self._process.held
        if held is None:
            self._held, self._kills = None, out_of_memory_kills()
            return
        if held != self._held:
            self._held, self._read_at, self._asked_at = held, 0.0, None
        if not _lives(held.pid):
            self._died(held)
        elif (error := self._over_limit(held)) is not None:
            self._fail(held, error)
        elif time.monotonic() - self._read_at >= _READ_SECONDS:
            self._look_at_job(held)

    def _died(self, held: Held) -> None:
        kills = out_of_memory_kills()
        starved, self._kills = kills > self._kills, kills
        with suppress(LeaseLost):
            self._tools.store.lose(held.lease, out_of_memory=starved)
            why = "killed for want of memory" if starved else "dead"
            self._log(held, f"its process is {why}")
        self._process.forget(held)

    def _over_limit(self, held: Held) -> JobError | None:
        limit = self._settings.memory_bytes
        if limit and (used := resident_bytes(held.pid)) > limit:
            return JobError(
                "out_of_memory",
                f"The job took {used / 2**20:.0f} MiB of memory; a worker here may take {limit / 2**20:.0f}. "
                "Try a smaller model, rank or batch, or have LORAMEND_MEMORY_BYTES raised.",
            )
        if time.monotonic() - held.begun > self._settings.phase_seconds:
            return _too_long("phase_timed_out", "A phase of the job", self._settings.phase_seconds)
        return None

    def _look_at_job(self, held: Held) -> None:
        try:
            record: JobRecord | None = self._tools.store.held(held.lease)
        except LeaseLost:
            record = None
        self._read_at = time.monotonic()
        store, lease = self._tools.store, held.lease
        if record is not None and record.started_at is not None:
            age = (datetime.now(UTC) - record.started_at).total_seconds()
            if age > self._settings.job_seconds:
                self._fail(held, _too_long("timed_out", "The job", self._settings.job_seconds))
                return
        if record is None:
            self._when_asked(held, "it is no longer this worker's", lambda: None)
        elif record.cancel_requested:
            self._when_asked(held, "it is canceled", lambda: store.finish(lease, "canceled"))
        elif self._process.must_hand_back:
            self._when_asked(held, "it is handed back", lambda: store.release(lease))
        else:
            self._asked_at = None

    def _when_asked(self, held: Held, why: str, write: Callable[[], object]) -> None:
        """Do it once the child had its time to do so itself, which ends the work in better order."""
        now = time.monotonic()
        self._asked_at = now if self._asked_at is None else self._asked_at
        if now - self._asked_at >= _PATIENCE_SECONDS:
            self._end(held, why, write)

    def _fail(self, held: Held, error: JobError) -> None:
        problem = error.problem()
        self._end(held, error.code, lambda: self._tools.store.finish(held.lease, "failed", error=problem))

    def _end(self, held: Held, why: str, write: Callable[[], object]) -> None:
        """Write what becomes of the job, and kill the process that still works on it: it can write no more.
        Its message comes again and finds the job ended, or waiting."""
        with suppress(LeaseLost):
            write()
        if self._process.held == held:
            self._log(held, why)
            with suppress(ProcessLookupError):
                os.kill(held.pid, signal.SIGKILL)

    def _log(self, held: Held, why: str) -> None:
        job_id = held.lease.job_id
        _LOG.warning("job %s is stopped: %s", job_id, why, extra={"job": job_id})


def _too_long(code: ErrorCode, what: str, seconds: float) -> JobError:
    return JobError(code, f"{what} took longer than the {seconds:.0f} s that a worker here allows.")


def _lives(pid: int) -> bool:
    """Whether the process is there and no zombie; without /proc a zombie passes until it is reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
