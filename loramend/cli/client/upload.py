"""PUT /uploads/{sha256}: files that a request then names by their digests."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from loramend.cli.client.connect import raise_for
from loramend.contracts.job import Progress

_CHUNK = 2**20


def upload(client: httpx.Client, file: Path, name: str, on_progress: Callable[[Progress], None]) -> str:
    """Stream a file to the server; its sha256. Raises the server's refusals."""
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    size = file.stat().st_size

    def chunks() -> Iterator[bytes]:
        done = 0
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
                done += len(chunk)
                on_progress(Progress(phase="fetch", done=done, total=size, unit="bytes", detail=name))

    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
    raise_for(client.put(f"/uploads/{sha256}", content=chunks(), headers=headers))
    return sha256
