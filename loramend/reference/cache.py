"""Subspaces on disk, so that the second adapter for a model pair costs no pass over its weights."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from loramend.leftovers import claim, remove_abandoned
from loramend.reference.models import Subspace
from loramend.reference.range_finder import share

logger = logging.getLogger(__name__)

# Raise it when the numbers a subspace holds change.
VERSION = 1
DEFAULT_MAX_BYTES = 8 << 30


def key_of(kind: str, inputs: Sequence[str], width: int) -> str:
    """A subspace's key: what it is of (`kind`), what identifies each matrix it was computed from, and how
    many triplets were asked for."""
    return f"{kind}-{hashlib.sha256(json.dumps([VERSION, list(inputs), width]).encode()).hexdigest()}"


class SubspaceCache:
    """One safetensors file a subspace: U, S, V (float32), norm (float64) and a checksum of them.

    Files appear whole (written aside, then renamed), so processes may share the folder. One that cannot be
    read or fails its checksum is deleted and counts as absent. Over `max_bytes` those unused for longest go
    first. A folder that cannot be written costs speed, not the run. Whoever can write the folder can change
    what repairs compute: keep it private."""

    def __init__(self, folder: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def get(self, key: str) -> Subspace | None:
        """The subspace under this key, or None. Using one makes it the newest."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        subspace = _decode(data)
        with suppress(OSError):
            if subspace is None:
                path.unlink()
            else:
                os.utime(path)
        return subspace

    def put(self, key: str, subspace: Subspace) -> None:
        """Keep a subspace, then delete the oldest ones over the cap."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(self._path(key), _encode(subspace))
            self._evict()
        except OSError as error:
            logger.warning("subspace not cached: %s", error)

    def _write(self, path: Path, data: bytes) -> None:
        remove_abandoned(self._folder, "*.part")
        while True:
            descriptor, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
            if claim(descriptor):
                break
            os.close(descriptor)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _evict(self) -> None:
        entries = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another process evicted it
                stat = path.stat()
                if path.suffix == ".safetensors":
                    entries.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"


def _checksum(tensors: dict[str, Tensor]) -> Tensor:
    digest = hashlib.sha256()
    for name in ("U", "S", "V", "norm"):
        digest.update(f"{name}{list(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().data)
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def _encode(subspace: Subspace) -> bytes:
    tensors = {
        "U": subspace.U.contiguous(),
        "S": subspace.S.contiguous(),
        "V": subspace.V.contiguous(),
        "norm": torch.tensor([subspace.norm], dtype=torch.float64),
    }
    return safetensors.torch.save({**tensors, "sha256": _checksum(tensors)})


def _decode(data: bytes) -> Subspace | None:
    try:
        tensors = safetensors.torch.load(data)
        if not torch.equal(tensors.pop("sha256"), _checksum(tensors)):
            return None
    except (SafetensorError, KeyError, RuntimeError, TypeError):
        return None
    norm = float(tensors["norm"])
    return Subspace(
        U=tensors["U"], S=tensors["S"], V=tensors["V"], norm=norm, energy=share(tensors["S"], norm)
    )
