"""Files by their digest, in a local folder or an object store."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from loramend.contracts.errors import LoramendError, RequestError
from loramend.leftovers import claim, remove_abandoned
from service.jobs.disk import disk_full, is_disk_full
from service.jobs.records import BlobRef

CHUNK = 1 << 20
_IDLE_SECONDS = 60.0


class Storage:
    """Blobs under `url` (any fsspec URL): written once, named by their sha256.

    A blob appears whole or not at all: it is written beside its place and then moved there. Every method
    raises LoramendError `storage_unavailable` where the storage does not answer, `disk_full` where it is
    full.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        with _unavailable():
            self._fs: fsspec.AbstractFileSystem
            self._root: str
            # Other processes write too, so listings must not be remembered.
            self._fs, self._root = url_to_fs(url, use_listings_cache=False, **(options or {}))
        self._local = "file" in self._fs.protocol

    def put_file(self, path: Path, *, expect: str | None = None) -> BlobRef:
        """Store a local file."""
        with path.open("rb") as file:
            return self.put_stream(iter(lambda: file.read(CHUNK), b""), expect=expect)

    def put_bytes(self, data: bytes) -> BlobRef:
        """Store bytes."""
        return self.put_stream([data])

    def put_stream(
        self, chunks: Iterable[bytes], *, max_bytes: int | None = None, expect: str | None = None
    ) -> BlobRef:
        """Store what the chunks hold, in constant memory. What the iterable raises passes through.

        Raises RequestError `payload_too_large` as soon as the chunks exceed max_bytes, `digest_mismatch`
        where their sha256 is not `expect`; nothing is kept then.
        """
        temporary, file = self._open_temporary()
        digest = hashlib.sha256()
        size = 0
        try:
            try:
                for chunk in chunks:
                    size += len(chunk)
                    if max_bytes is not None and size > max_bytes:
                        raise RequestError("payload_too_large", f"The body is over {max_bytes} bytes.")
                    digest.update(chunk)
                    with _unavailable():
                        file.write(chunk)
                if expect is not None and digest.hexdigest() != expect:
                    raise RequestError(
                        "digest_mismatch", f"The body's sha256 is {digest.hexdigest()}, not {expect}."
                    )
            except BaseException:
                self._abandon(file)
                raise
            ref = BlobRef(sha256=digest.hexdigest(), size=size)
            with _unavailable():
                final = self._path(ref.sha256)
                if self._local:
                    self._fs.makedirs(self._fs._parent(final), exist_ok=True)
                    # Held until it has its place.
                    file.flush()
                    self._fs.mv(temporary, final)
                    file.close()
                else:
                    file.close()
                    self._fs.mv(temporary, final)
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(temporary)
            raise
        return ref

    def open(self, ref: BlobRef, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The blob's bytes [start, end) in chunks. A missing blob raises here, not at the first chunk."""
        with _unavailable():
            file = self._fs.open(self._path(ref.sha256), "rb")
        return _read(file, start, ref.size if end is None else min(end, ref.size))

    def fetch(self, ref: BlobRef, path: Path) -> None:
        """Copy a blob to a local file, checking its digest."""
        digest = hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in self.open(ref):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != ref.sha256:
            path.unlink()
            raise LoramendError("storage_unavailable", f"The stored file {ref.sha256} is damaged.")

    def exists(self, sha256: str) -> BlobRef | None:
        """The blob with that digest, if it is there."""
        with _unavailable():
            try:
                info = self._fs.info(self._path(sha256))
            except FileNotFoundError:
                return None
        return BlobRef(sha256=sha256, size=info["size"])

    def sizes(self) -> dict[str, int]:
        """The bytes of every blob, by digest."""
        with _unavailable():
            try:
                found = self._fs.find(f"{self._root}/sha256", detail=True)
            except FileNotFoundError:
                return {}
            return {path.rpartition("/")[2]: info["size"] for path, info in found.items()}

    def delete(self, sha256: str) -> None:
        """Remove a blob; one that is not there is no error."""
        with _unavailable(), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(sha256))

    def ready(self) -> None:
        """Write and remove a small object, to see that the storage takes files."""
        ref = f"{self._root}/temporary/{uuid.uuid4().hex}"
        with _unavailable():
            if self._local:
                self._fs.makedirs(self._fs._parent(ref), exist_ok=True)
            self._fs.pipe_file(ref, b"")
            self._fs.rm_file(ref)

    def remove_leftovers(self, older_than: timedelta) -> None:
        """Remove what writers that were killed left unfinished: in a local folder soon, elsewhere once it
        is that old."""
        if self._local:
            remove_abandoned(Path(self._root) / "temporary", idle_seconds=_IDLE_SECONDS)
        before = datetime.now(UTC) - older_than
        with _unavailable(), suppress(FileNotFoundError):
            for path in self._fs.ls(f"{self._root}/temporary", detail=False):
                with suppress(FileNotFoundError):
                    if self._fs.modified(path) < before:
                        self._fs.rm_file(path)

    def _open_temporary(self) -> tuple[str, Any]:
        """A new file to write to, and its path; a local one is held while it is open."""
        with _unavailable():
            while True:
                path = f"{self._root}/temporary/{uuid.uuid4().hex}"
                if self._local:
                    self._fs.makedirs(self._fs._parent(path), exist_ok=True)
                file = self._fs.open(path, "wb")
                if not self._local or claim(file.fileno()):
                    return path, file
                file.close()

    def _abandon(self, file: Any) -> None:
        """Stop writing. An object store's file would finish its upload on close: it is discarded instead."""
        with suppress(Exception):
            if self._local:
                file.close()
            else:
                file.discard()
                file.closed = True

    def _path(self, sha256: str) -> str:
        return f"{self._root}/sha256/{sha256[:2]}/{sha256}"


@contextmanager
def _unavailable() -> Iterator[None]:
    """Object stores' clients raise many kinds of errors that share no base class."""
    try:
        yield
    except LoramendError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise disk_full("The storage's") from error
        raise LoramendError(
            "storage_unavailable", f"The storage did not answer ({type(error).__name__}). Try again later."
        ) from error


def _read(file: Any, start: int, end: int) -> Iterator[bytes]:
    with file:
        with _unavailable():
            file.seek(start)
        while start < end:
            with _unavailable():
                chunk: bytes = file.read(min(CHUNK, end - start))
                if not chunk:
                    raise EOFError
            start += len(chunk)
            yield chunk
