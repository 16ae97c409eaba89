"""Archives: unpacked under caps, packed the same way every time."""

import contextlib
import errno
import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, Protocol

from loramend.adapter.header import pickle_refused
from loramend.adapter.limits import Limits, MiB
from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError

ArchiveKind = Literal["zip", "tar", "tar.gz"]

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_FIRST_ZIP_DAY = (1980, 1, 1, 0, 0, 0)
_PLAIN_TAR_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)

# What the standard library raises on bytes that are not the archive they claim to be.
_MALFORMED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # zipfile, of a compression it does not know
    ValueError,
    OverflowError,
    IndexError,
    KeyError,
    RuntimeError,
)


def kind_of(path: Path) -> ArchiveKind | None:
    """What kind of archive a file is, by its content; None for anything else."""
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(_ZIP_STARTS):
        return "zip"
    if start.startswith(b"\x1f\x8b"):
        return "tar.gz"
    return "tar" if start[257:262] == b"ustar" else None


def extract(archive: Path, into: Path, limits: Limits) -> Path:
    """Unpacks a zip, tar or tar.gz, recognised by content, into the new or empty folder `into`; returns it.

    Only regular files and folders whose names stay inside `into` are written, under caps on members, bytes
    and ratio that are counted while unpacking. On failure `into` is left empty.

    Raises AdapterError `archive_invalid`, `archive_unsafe`, `archive_too_large` or `pickle_refused`.
    """
    where = archive.name
    size = archive.stat().st_size
    if size > limits.max_archive_bytes:
        raise AdapterError(
            "archive_too_large",
            f"The archive has {size} bytes; at most {limits.max_archive_bytes} are taken.",
            where=where,
        )
    kind = kind_of(archive)
    if kind is None:
        raise AdapterError(
            "archive_invalid", "The file is not a zip, tar or tar.gz archive; send one of these.", where=where
        )
    into.mkdir(parents=True, exist_ok=True)
    if any(into.iterdir()):
        raise ValueError(f"{into} is not empty")
    unpacking = _Unpacking(into, size, limits, where)
    try:
        if kind == "zip":
            _extract_zip(archive, unpacking)
        elif kind == "tar":
            _extract_tar(archive, unpacking)
        else:
            with _gunzipped(archive, unpacking) as tar:
                _extract_tar(tar, unpacking)
    except BaseException as error:
        for entry in into.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if isinstance(error, _MALFORMED):
            raise AdapterError(
                "archive_invalid", f"The archive cannot be read: {quote(str(error))}.", where=where
            ) from None
        raise
    return into


def pack(folder: Path, archive: Path) -> None:
    """Packs a folder's files into a .zip or .tar.gz, by the archive's suffix; same files, same bytes.

    Entries are sorted, without times, owners or links. The archive appears under its name only when complete.
    """
    files = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    partial = archive.with_name(f".{archive.name}.partial")
    try:
        if archive.name.endswith(".zip"):
            _pack_zip(files, partial)
        elif archive.name.endswith((".tar.gz", ".tgz")):
            _pack_tar(files, partial)
        else:
            raise ValueError(f"{archive.name}: the suffix must be .zip, .tar.gz or .tgz")
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Unpacking:
    """Where members go, and how much more may come."""

    def __init__(self, into: Path, archive_bytes: int, limits: Limits, where: str) -> None:
        self.limits = limits
        self.where = where
        self._into = into
        self._allowed = min(
            limits.max_unpacked_bytes, max(limits.ratio_free_bytes, int(limits.max_ratio * archive_bytes))
        )
        self._written = 0
        self._members = 0
        self._seen: dict[str, bool] = {}  # folded name -> is a folder

    def member(self, name: str, *, folder: bool) -> Path:
        """The path a member is written to. Each name comes once; only folders lie above other members."""
        self._members += 1
        if self._members > self.limits.max_members:
            raise self.too_large(f"more than {self.limits.max_members} members")
        parts = self._safe_parts(name)
        if folder and not parts:
            return self._into
        if not parts:
            raise self.unsafe(name, "has no name")
        folded = [unicodedata.normalize("NFC", part).casefold() for part in parts]
        for depth in range(1, len(parts)):
            if not self._seen.setdefault("/".join(folded[:depth]), True):
                raise self.unsafe(name, "lies below a file")
        key = "/".join(folded)
        if key in self._seen and not (folder and self._seen[key]):
            raise self.unsafe(name, "comes twice (upper and lower case count as the same)")
        self._seen[key] = folder
        path = self._into.joinpath(*parts)
        (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
        return path

    def write(self, source: _Source, path: Path) -> None:
        with path.open("xb") as target:
            while chunk := source.read(MiB):
                self.count(len(chunk))
                target.write(chunk)

    def count(self, size: int) -> None:
        self._written += size
        if self._written > self._allowed:
            raise self.too_large(f"more than {self._allowed} bytes")

    def restart(self) -> None:
        """What was counted so far was a tar on its way, not its members."""
        self._written = 0

    def scratch(self) -> Path:
        """Where a temporary file may lie: on the same disk, outside what is unpacked."""
        return self._into.parent

    def too_large(self, what: str) -> AdapterError:
        return AdapterError("archive_too_large", f"The archive unpacks to {what}.", where=self.where)

    def unsafe(self, name: str, why: str) -> AdapterError:
        return AdapterError(
            "archive_unsafe",
            f"Member {quote(name)} {why}. Pack plain files, each once, under relative names.",
            where=self.where,
        )

    def _safe_parts(self, name: str) -> list[str]:
        if len(name) > self.limits.max_path_length:
            raise self.unsafe(name, f"has a name of more than {self.limits.max_path_length} characters")
        if not name.isprintable() or "\\" in name or ":" in name:
            raise self.unsafe(name, "has a name with a backslash, a colon or a control character")
        if name.startswith("/"):
            raise self.unsafe(name, "has an absolute name")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.unsafe(name, "leaves its folder")
        if any(len(part.encode()) > 255 for part in parts):
            raise self.unsafe(name, "has a name that file systems do not take")
        return parts


class _Capped(io.RawIOBase):
    """A file of which no more than `cap` bytes are ever read at once: zipfile and tarfile believe the sizes
    that an archive declares for its own directory and headers."""

    def __init__(self, file: IO[bytes], cap: int, unpacking: _Unpacking) -> None:
        self._file = file
        self._cap = cap
        self._unpacking = unpacking

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(self._cap + 1 if size < 0 else min(size, self._cap + 1))
        if len(data) > self._cap:
            raise self._unpacking.too_large(f"a directory of more than {self._cap} bytes")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise ValueError("it points before its own start") from None
            raise

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _extract_zip(archive: Path, unpacking: _Unpacking) -> None:
    # A member takes 46 bytes and its name in the central directory, extra fields aside.
    cap = max(2 * MiB, unpacking.limits.max_members * (46 + 2 * unpacking.limits.max_path_length))
    with archive.open("rb") as raw, zipfile.ZipFile(_Capped(raw, cap, unpacking)) as opened:
        for info in opened.infolist():
            if info.flag_bits & 0x1:
                raise unpacking.unsafe(info.filename, "is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile("a member is compressed by a method other than deflate")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise unpacking.unsafe(info.filename, "is a link or device")
            if info.filename.endswith("/data.pkl"):
                raise pickle_refused(unpacking.where)
            path = unpacking.member(info.filename, folder=info.is_dir())
            if not info.is_dir():
                with opened.open(info) as source:
                    unpacking.write(source, path)


def _extract_tar(archive: Path, unpacking: _Unpacking) -> None:
    with (
        archive.open("rb") as raw,
        tarfile.open(fileobj=_Capped(raw, 2 * MiB, unpacking), mode="r:") as opened,
    ):
        for info in opened:
            if info.type not in _PLAIN_TAR_TYPES or info.sparse is not None:
                raise unpacking.unsafe(info.name, "is a link, device or sparse file")
            path = unpacking.member(info.name, folder=info.isdir())
            if info.isfile():
                source = opened.extractfile(info)
                assert source is not None  # only links and the like have none
                with source:
                    unpacking.write(source, path)


@contextlib.contextmanager
def _gunzipped(archive: Path, unpacking: _Unpacking) -> Iterator[Path]:
    """The tar inside a tar.gz, in a file of its own, since tarfile seeks back and gzip cannot."""
    with tempfile.TemporaryDirectory(dir=unpacking.scratch()) as folder:
        tar = Path(folder) / "archive.tar"
        with gzip.open(archive) as source:
            unpacking.write(source, tar)
        unpacking.restart()
        yield tar


def _pack_zip(files: list[tuple[str, Path]], archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, path in files:
            info = zipfile.ZipInfo(name, _FIRST_ZIP_DAY)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.create_system = 3  # Unix, wherever it is packed
            info.file_size = path.stat().st_size  # so that zip64 is chosen where it is needed
            with path.open("rb") as source, packed.open(info, "w") as target:
                shutil.copyfileobj(source, target, MiB)


def _pack_tar(files: list[tuple[str, Path]], archive: Path) -> None:
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as packed,
    ):
        for name, path in files:
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            info.mode = 0o644
            with path.open("rb") as source:
                packed.addfile(info, source)
