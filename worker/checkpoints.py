"""Training state in the job's storage: a worker that takes the job up goes on from there, on any machine."""

import logging
from pathlib import Path

from loramend.contracts.errors import LoramendError
from service.jobs.intake import store_files
from worker.job import Work

_LOG = logging.getLogger("worker.checkpoints")


class StoredCheckpoints:
    """The `Checkpoints` of one job under one lease: whoever lost it can neither read on nor write."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def load(self, key: str) -> Path | None:
        """The newest checkpoint of the run with that key, fetched; None where there is none that can be."""
        ref = self._work.record.checkpoints.get(key)
        if ref is None:
            return None
        path = self._work.folder / "checkpoint"
        try:
            self._work.tools.storage.fetch(ref, path)
        except LoramendError as error:
            self._warn("could not be read, training starts anew", error)
            return None
        return path

    def save(self, key: str, path: Path) -> None:
        """Store the file in place of the run's checkpoint before. Raises LeaseLost."""
        work = self._work
        try:
            stored = store_files(
                {key: path}, job_id=work.record.id, storage=work.tools.storage, store=work.tools.store
            )
        except LoramendError as error:
            # The one before is still there; a training is not given up for this.
            self._warn("could not be stored", error)
            return
        work.update(checkpoints=work.record.checkpoints | stored)

    def _warn(self, what: str, error: LoramendError) -> None:
        job_id = self._work.record.id
        _LOG.warning("checkpoint of job %s %s: %s", job_id, what, error, extra={"job": job_id})
