"""What a worker's parent process does beside waiting: say that it lives, and clear up after the dead."""

import logging
import re
import shutil
import threading
import time
from datetime import timedelta
from pathlib import Path

from loramend.contracts.errors import LoramendError
from service.jobs.store import JobStore
from worker.process import WorkerProcess
from worker.settings import WorkerSettings
from worker.tools import Tools

_LOG = logging.getLogger("worker.reaper")
_FOLDER = re.compile(r"([0-9a-f]{32})\.(\d+)")
_SWEEP_SECONDS = 60.0
# Between two signs of life.
_EXPIRY_SECONDS = 5.0
# Longer than any upload takes.
_UNFINISHED = timedelta(days=1)


class Reaper:
    """A thread that finds jobs whose worker died or whose message was lost, jobs that were kept long enough,
    blobs nobody refers to, and folders of workers that were killed. Every worker runs one: the job store lets
    only one of them act."""

    def __init__(self, tools: Tools, settings: WorkerSettings, process: WorkerProcess) -> None:
        self._tools = tools
        self._settings = settings
        self._process = process
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
        swept = -_SWEEP_SECONDS
        while True:
            sweeping = time.monotonic() - swept >= _SWEEP_SECONDS
            try:
                self.look()
                if sweeping:
                    swept = time.monotonic()
                    if not self.sweep():
                        swept -= _SWEEP_SECONDS
            except Exception:
                # The broker or the storage may be away for a while; the thread must outlive that.
                _LOG.warning("the reaper could not do its round", exc_info=True)
            if self._stopped.wait(self._settings.reap_seconds):
                return

    def look(self) -> None:
        """Say that this worker lives; send what must be run again; clear what killed workers left."""
        store = self._tools.store
        token = self._settings.hub_token
        publishes = "io" in self._process.queues and bool(token and token.get_secret_value())
        ttl = 3 * self._settings.reap_seconds + 5
        store.heartbeat_worker(self._process.name, ttl, publishes=publishes)
        for job_id, queue in store.reap():
            _LOG.info("job %s is sent to %s again", job_id, queue, extra={"job": job_id})
            try:
                self._tools.dispatcher.send(job_id, queue)
            except LoramendError as error:
                _LOG.warning("job %s could not be sent: %s", job_id, error, extra={"job": job_id})
        remove_leftovers(self._settings.work_dir, store)

    def sweep(self) -> bool:
        """Remove what is kept long enough or takes too much room, and blobs that nothing refers to. False
        where there is more to do."""
        self._tools.store.blobs.sweep(self._tools.storage)
        self._tools.storage.remove_leftovers(_UNFINISHED)
        return self._tools.expiry.run(_EXPIRY_SECONDS)


def remove_leftovers(work_dir: Path, store: JobStore) -> None:
    """Remove the work folders of leases that are no more."""
    if not work_dir.is_dir():
        return
    for folder in work_dir.iterdir():
        match = _FOLDER.fullmatch(folder.name)
        if match and not store.is_held(match[1], int(match[2])):
            shutil.rmtree(folder, ignore_errors=True)
