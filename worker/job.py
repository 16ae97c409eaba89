"""One job in one worker's hands."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.jobs.lease import Lease
from service.jobs.records import BlobRef, JobRecord
from service.jobs.storage import Storage
from worker.insist import insist
from worker.keeper import Keeper
from worker.settings import WorkerSettings
from worker.tools import Tools


@dataclass
class Work:
    """What a phase works with.

    record  as last read or written by this worker
    folder  empty, this worker's own, removed when the phase ends
    """

    record: JobRecord
    lease: Lease
    folder: Path
    keeper: Keeper
    tools: Tools
    settings: WorkerSettings

    def update(self, **fields: Any) -> None:
        """Set fields of the record. Raises LeaseLost."""
        self.record = insist(lambda: self.tools.store.update(self.lease, **fields))

    def token(self) -> str | None:
        """The Hub token that came with the job."""
        token = self.tools.vault.get(self.record.id)
        return token.get_secret_value() if token else None


@contextmanager
def work_folder(work_dir: Path, lease: Lease) -> Iterator[Path]:
    """A folder for as long as the block runs. Its name tells the reaper whose it is: the job's and the
    lease's."""
    folder = work_dir / f"{lease.job_id}.{lease.fence}"
    folder.mkdir(mode=0o700, parents=True)
    # What libraries put into the system's temporary folder would outlive a worker that is killed.
    usual, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = usual
        shutil.rmtree(folder, ignore_errors=True)


def materialise(files: dict[str, BlobRef], folder: Path, storage: Storage) -> Path:
    """Copy blobs to their relative paths under `folder`; returns it."""
    root = folder.resolve()
    for name, ref in files.items():
        path = (root / name).resolve()
        if not path.is_relative_to(root) or path == root:
            raise ValueError(f"{name} leaves its folder")
        storage.fetch(ref, path)
    return folder


def adapter_config(record: JobRecord, storage: Storage) -> dict[str, Any]:
    """The source adapter's adapter_config.json; empty where it has none."""
    for name, ref in record.input.items():
        if Path(name).name == "adapter_config.json":
            config = json.loads(b"".join(storage.open(ref)))
            return config if isinstance(config, dict) else {}
    return {}
