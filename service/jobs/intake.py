"""From an uploaded file or a fetched folder to checked blobs."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loramend.adapter.archive import extract, kind_of
from loramend.adapter.check import check_files
from loramend.adapter.header import pickle_refused
from loramend.adapter.limits import Limits
from loramend.contracts.data import DataField, DataRole
from loramend.contracts.errors import AdapterError, DataError, RequestError
from loramend.data.jsonl import DataLimits, read_jsonl
from service.jobs.records import BlobRef, DataFile
from service.jobs.storage import Storage
from service.jobs.store import JobStore

# Blobs of a job that is not stored in the end are swept after this.
HOLD_SECONDS = 3600
_PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})


def take_upload(
    path: Path,
    filename: str,
    config: dict[str, Any] | None,
    *,
    job_id: str,
    storage: Storage,
    store: JobStore,
    limits: Limits,
) -> dict[str, BlobRef]:
    """Check the upload at `path` (an archive, or a .safetensors file with its `config`), without reading a
    tensor, and store its adapter's files for the job. Returns them by relative path.

    `filename` is the client's and only tells pickles apart. Raises AdapterError, RequestError.
    """
    if Path(filename).suffix.lower() in _PICKLES:
        raise pickle_refused(Path(filename).name)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="intake-") as temporary:
        folder = Path(temporary) / "adapter"
        if kind_of(path) is not None:
            if config is not None:
                raise RequestError(
                    "request_invalid",
                    "`config` goes with a bare .safetensors file; an archive brings its own.",
                    where="/source/config",
                )
            folder = extract(path, folder, limits)
        else:
            _lay_out(path, config, folder, limits)
        return take_folder(folder, job_id=job_id, storage=storage, store=store, limits=limits)


def take_folder(
    folder: Path, *, job_id: str, storage: Storage, store: JobStore, limits: Limits
) -> dict[str, BlobRef]:
    """The same for a folder: check it and store the files that make up the adapter, without the folder
    that an
    archive may have around them."""
    found = check_files(folder, limits).found
    files = {name: found.root / name for name in found.files}
    return store_files(files, job_id=job_id, storage=storage, store=store)


def check_data(
    path: Path, role: DataRole, name: str, fields: Mapping[DataField, str], limits: DataLimits, *, where: str
) -> None:
    """Refuse a file of text that cannot be read, naming it and the line. Raises DataError with `where` as its
    place."""
    try:
        read_jsonl(path, role, name=name, fields=fields, limits=limits)
    except DataError as error:
        raise DataError(error.code, f"{error.where}: {error.detail}", where=where) from None


def store_data(
    files: Mapping[DataRole, tuple[Path, str]], *, job_id: str, storage: Storage, store: JobStore
) -> dict[DataRole, DataFile]:
    """Store checked files of text, each with the name that it goes by, for the job."""
    stored: dict[DataRole, DataFile] = {}
    for role, (path, name) in files.items():
        ref = store_files({name: path}, job_id=job_id, storage=storage, store=store)[name]
        stored[role] = DataFile(name=name, sha256=ref.sha256, size=ref.size)
    return stored


def store_files(
    files: dict[str, Path], *, job_id: str, storage: Storage, store: JobStore
) -> dict[str, BlobRef]:
    """Put local files for the job, held before they are put. Returns them by the same names."""
    digests = {name: _sha256(path) for name, path in files.items()}
    store.blobs.hold(digests.values(), job_id, HOLD_SECONDS)
    return {name: storage.put_file(path, expect=digests[name]) for name, path in files.items()}


def _lay_out(path: Path, config: dict[str, Any] | None, folder: Path, limits: Limits) -> None:
    """A folder as PEFT writes it, around a bare weights file."""
    folder.mkdir()
    weights = folder / "adapter_model.safetensors"
    try:
        os.link(path, weights)
    except OSError:
        shutil.copyfile(path, weights)
    if config is None:
        return
    text = json.dumps(config, indent=2)
    if len(text.encode()) > limits.max_config_bytes:
        raise AdapterError(
            "limit_exceeded", f"The config is over {limits.max_config_bytes} bytes.", where="/source/config"
        )
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
