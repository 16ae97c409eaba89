"""What a worker's parent process does beside waiting: say that it lives, and clear up after the dead."""

import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

from loramend.contracts.errors import LoramendError
from loramend.leftovers import remove_abandoned
from service.jobs.store import JobStore
from worker.process import WorkerProcess
from worker.settings import WorkerSettings
from worker.stall import Stall
from worker.tools import Tools

_LOG = logging.getLogger("worker.reaper")
_FOLDER = re.compile(r"([0-9a-f]{32})\.(\d+)")
# Between two signs of life.
_EXPIRY_SECONDS = 5.0
# With the usual 5 s between two rounds, once a minute.
_SWEEP_ROUNDS = 12
# Longer than any upload takes.
_UNFINISHED = timedelta(days=1)


class Reaper:
    """A thread that finds jobs whose worker died or whose message was lost, webhooks that are due, jobs that
    were kept long enough, blobs nobody refers to, and folders of workers that were killed. Every worker runs
    one: the job store lets only one of them act."""

    def __init__(self, tools: Tools, settings: WorkerSettings, process: WorkerProcess) -> None:
        self._tools = tools
        self._settings = settings
        self._process = process
        self._reaps_at = 0.0
        self._stall = Stall(tools.messages, process)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and say that this worker no longer lives."""
        self._stopped.set()
        self._thread.join(timeout=5)
        try:
            self._tools.store.forget_worker(self._process.name)
        except Exception:
            _LOG.warning("the worker could not be taken off the list", exc_info=True)

    def _run(self) -> None:
        rounds = 0
        while True:
            try:
                self.look()
                # One that has more to do is gone on with in the next round.
                if rounds % _SWEEP_ROUNDS or self.sweep():
                    rounds += 1
            except Exception:
                # The broker or the storage may be away for a while; the thread must outlive that.
                _LOG.warning("the reaper could not do its round", exc_info=True)
            if self._stopped.wait(self._settings.reap_seconds):
                return

    def look(self) -> None:
        """Say that this worker lives; send what must be run again; clear what killed workers left."""
        store = self._tools.store
        self._say_alive()
        for job_id, queue in store.reap() if time.monotonic() >= self._reaps_at else ():
            _LOG.info("job %s is sent to %s again", job_id, queue, extra={"job": job_id})
            self._send(job_id, partial(self._tools.dispatcher.send, job_id, queue))
        for job_id in self._tools.outbox.claim():
            self._send(job_id, partial(self._tools.dispatcher.deliver, job_id))
        remove_leftovers(self._settings.work_dir, store)
        if self._stall.look():
            _LOG.critical("the worker takes no messages though some wait: it ends, to be started again")
            store.forget_worker(self._process.name)
            # The main thread cannot be relied on to end in order, and there is no job to hand back.
            os._exit(os.EX_TEMPFAIL)

    def _send(self, job_id: str, send: Callable[[], None]) -> None:
        """What cannot be sent is due again later."""
        try:
            send()
        except LoramendError as error:
            _LOG.warning("job %s could not be sent: %s", job_id, error, extra={"job": job_id})

    def _say_alive(self) -> None:
        """Tell the store that this worker lives, and notice where the store was away. Leases that ran out
        because nobody could renew them are for their holders to renew first: for as long as a lease this
        worker takes none away then."""
        seconds, token = self._settings.lease_seconds, self._settings.hub_token
        publishes = "io" in self._process.queues and bool(token and token.get_secret_value())
        ttl = 3 * self._settings.reap_seconds + 5
        begun = time.monotonic()
        answered = False
        try:
            self._tools.store.heartbeat_worker(self._process.name, ttl, publishes=publishes)
            answered = True
        finally:
            now = time.monotonic()
            if not answered or now - begun > seconds / 3:
                self._reaps_at = now + seconds

    def sweep(self) -> bool:
        """Remove what is kept long enough or takes too much room, blobs that nothing refers to, files that
        nobody writes any more, and messages of jobs that have ended. False where there is more to do."""
        self._tools.store.blobs.sweep(self._tools.storage)
        self._tools.storage.remove_leftovers(_UNFINISHED)
        remove_abandoned(self._settings.cache_dir / "subspaces", "*.part")
        self._tools.messages.remove_ended(self._tools.store.has_ended)
        return self._tools.expiry.run(_EXPIRY_SECONDS)


def remove_leftovers(work_dir: Path, store: JobStore) -> None:
    """Remove the work folders of leases that are no more."""
    if not work_dir.is_dir():
        return
    for folder in work_dir.iterdir():
        match = _FOLDER.fullmatch(folder.name)
        if match and not store.is_held(match[1], int(match[2])):
            shutil.rmtree(folder, ignore_errors=True)
