"""Zip archives unpacked, without belief in what they say of themselves."""

import errno
import io
import os
import stat
import zipfile
from pathlib import Path
from typing import IO

from loramend.adapter.header import pickle_refused
from loramend.adapter.limits import MiB
from loramend.adapter.unpacking import Unpacking

_LOCAL_HEADER = 30  # bytes, its name and extra fields aside


def extract_zip(archive: Path, unpacking: Unpacking) -> None:
    """Writes every member through `unpacking`.

    Raises AdapterError, or what zipfile raises on bytes that are no zip.
    """
    # A member takes 46 bytes and its name in the central directory, extra fields aside.
    cap = max(2 * MiB, unpacking.limits.max_members * (46 + 2 * unpacking.limits.max_path_length))
    with archive.open("rb") as raw, zipfile.ZipFile(_Capped(raw, cap, unpacking)) as opened:
        members = opened.infolist()
        for info in members:
            _check(info, unpacking)
        _check_apart(members, opened.start_dir, unpacking)
        for info in members:
            path = unpacking.member(info.filename, folder=info.is_dir())
            if not info.is_dir():
                with opened.open(info) as source:
                    unpacking.write(source, path)


def _check(info: zipfile.ZipInfo, unpacking: Unpacking) -> None:
    if "\0" in info.orig_filename:  # zipfile cuts the name there, other tools do not
        raise unpacking.unsafe(info.orig_filename, "has a name with a NUL")
    if info.flag_bits & 0x1:
        raise unpacking.unsafe(info.filename, "is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile("a member is compressed by a method other than deflate")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise unpacking.unsafe(info.filename, "is a link or device")
    if info.filename.endswith("/data.pkl"):
        raise pickle_refused(unpacking.where)


def _check_apart(members: list[zipfile.ZipInfo], end: int, unpacking: Unpacking) -> None:
    """Members share no bytes: bombs that name one compressed block many times do."""
    ordered = sorted(members, key=lambda info: info.header_offset)
    for info, limit in zip(ordered, [*(info.header_offset for info in ordered[1:]), end], strict=True):
        least = info.header_offset + _LOCAL_HEADER + info.compress_size
        if least > limit:
            raise unpacking.unsafe(info.filename, "shares its bytes with another or with the directory")


class _Capped(io.RawIOBase):
    """A file of which no more than `cap` bytes are ever read at once: zipfile believes the size
    that an archive declares for its own directory."""

    def __init__(self, file: IO[bytes], cap: int, unpacking: Unpacking) -> None:
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
