"""Archives: unpacked under caps, packed the same way every time."""

import gzip
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Literal

from loramend.adapter.limits import Limits, MiB
from loramend.adapter.quote import quote
from loramend.adapter.unpacking import Unpacking
from loramend.adapter.untar import extract_tar
from loramend.adapter.unzip import extract_zip
from loramend.contracts.errors import AdapterError

ArchiveKind = Literal["zip", "tar", "tar.gz"]

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_FIRST_ZIP_DAY = (1980, 1, 1, 0, 0, 0)

# What the standard library raises on bytes that are not the archive they claim to be; RuntimeError, on a zip
# that is encrypted or of a version it does not know.
_MALFORMED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
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
    unpacking = Unpacking(into, size, limits, where)
    try:
        if kind == "zip":
            extract_zip(archive, unpacking)
        else:
            with archive.open("rb") if kind == "tar" else gzip.open(archive) as tar:
                extract_tar(tar, unpacking)
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
