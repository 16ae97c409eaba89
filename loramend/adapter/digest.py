"""Digests of files."""

import hashlib
from pathlib import Path

from loramend.adapter.limits import MiB


def digest_file(path: Path) -> tuple[str, int]:
    """(sha256 in hex, size in bytes)."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(MiB):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
