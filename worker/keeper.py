"""Keeping a job's lease, and noticing when its work must stop."""

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from loramend.contracts.errors import JobError
from loramend.contracts.job import Progress
from service.jobs.lease import Lease, LeaseLost
from service.jobs.store import JobStore
from worker.process import WorkerProcess

_LOG = logging.getLogger("worker.keeper")
# A lease that ran out while the store was away is still kept where nobody took it: the work goes on for this
# many times the lease's length, unless the store says otherwise.
_SILENCE = 10


class HandBack(BaseException):
    """The worker shuts down: give the job back. Like KeyboardInterrupt no error, and nobody's to catch on the
    way."""


class Keeper:
    """Watches over the lease of the one job that this process runs."""

    def __init__(
        self, store: JobStore, lease: Lease, process: WorkerProcess, *, ttl: float, period: float
    ) -> None:
        self._store = store
        self._lease = lease
        self._process = process
        self._ttl = ttl
        self._period = period
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._told = 0.0
        self._phase: str | None = None

    def on_progress(self, progress: Progress) -> None:
        """Tell the progress, not too often, and stop the work where it must stop.

        Raises JobError `canceled`, LeaseLost, HandBack.
        """
        self._stop_if_lost()
        new = progress.phase != self._phase or progress.done == progress.total
        if not new and time.monotonic() - self._told < self._period:
            return
        self._phase = progress.phase
        # JSON has no NaN, and a job whose loss is one must stay readable.
        values = {name: value for name, value in progress.values.items() if math.isfinite(value)}
        self._told = time.monotonic()
        try:
            record = self._store.progress(self._lease, progress.model_copy(update={"values": values}))
        except RedisError as error:
            # The work goes on for as long as the lease may be kept, which is the other thread's to find out.
            _LOG.warning("progress of job %s not told: %s", self._lease.job_id, error)
            return
        _stop_if_canceled(record.cancel_requested)

    def check(self) -> None:
        """The same, with nothing to tell."""
        self._stop_if_lost()
        _stop_if_canceled(self._store.cancel_requested(self._lease))

    def renew_until_ended(self) -> None:
        """The renewing thread's work."""
        renewed = time.monotonic()
        while not self._ended.wait(self._ttl / 3):
            try:
                if not self._store.renew(self._lease, self._ttl):
                    self._lost.set()
                    return
                renewed = time.monotonic()
            except RedisError as error:
                _LOG.warning("lease of job %s not renewed: %s", self._lease.job_id, error)
                if time.monotonic() - renewed > _SILENCE * self._ttl:
                    self._lost.set()
                    return

    def end(self) -> None:
        self._ended.set()

    def _stop_if_lost(self) -> None:
        if self._lost.is_set():
            raise LeaseLost
        if self._process.must_hand_back:
            raise HandBack


@contextmanager
def keeping(
    store: JobStore, lease: Lease, process: WorkerProcess, *, ttl: float, period: float
) -> Iterator[Keeper]:
    """Renews the lease in a thread for as long as the block runs."""
    keeper = Keeper(store, lease, process, ttl=ttl, period=period)
    thread = threading.Thread(target=keeper.renew_until_ended, name=f"lease-{lease.job_id}", daemon=True)
    thread.start()
    try:
        yield keeper
    finally:
        keeper.end()
        thread.join()


def _stop_if_canceled(requested: bool) -> None:
    if requested:
        raise JobError("canceled", "The job was canceled.")
