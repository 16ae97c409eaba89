"""Tar archives unpacked from a stream, block by block.

tarfile reads extended headers of any size and number into memory, and takes quadratic time over some; here a
header's body is small and its records must be well formed. An archive without its end is refused, where
tarfile takes what is there for all there was.
"""

import tarfile

from loramend.adapter.limits import MiB
from loramend.adapter.unpacking import Source, Unpacking

_BLOCK = 512
_END = bytes(_BLOCK)
_MAX_EXTENDED = 64 * 1024  # a name and a few attributes
_MAX_DIGITS = 20

_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


def extract_tar(stream: Source, unpacking: Unpacking) -> None:
    """Writes every member through `unpacking`.

    Raises AdapterError; tarfile.TarError, ValueError or EOFError on bytes that are no tar.
    """
    source = _Blocks(stream, unpacking)
    extended: dict[str, str] = {}
    while (block := source.take(_BLOCK)) != _END:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type in _PAX or info.type == tarfile.GNUTYPE_LONGNAME:
            body = source.extended(info.size)
            extended |= _name(body) if info.type == tarfile.GNUTYPE_LONGNAME else _records(body)
            if any(key.startswith("GNU.sparse") for key in extended):
                raise unpacking.unsafe(extended.get("path", info.name), "is a sparse file")
            if info.type == tarfile.XGLTYPE and extended:
                raise ValueError("a global header names a file")
            continue
        name, size = extended.get("path", info.name), _size(extended.get("size"), info.size)
        extended = {}
        if info.type == tarfile.DIRTYPE:
            unpacking.member(name, folder=True)
        elif info.type in _FILES:
            path = unpacking.member(name, folder=False)
            unpacking.write(_Member(stream, size), path)
            source.take(-size % _BLOCK)
        else:
            raise unpacking.unsafe(name, "is a link, device or sparse file")
    if extended:
        raise EOFError("it ends after an extended header")
    source.finish()


class _Blocks:
    """What of the stream is not a member's content, counted like that."""

    def __init__(self, stream: Source, unpacking: Unpacking) -> None:
        self._stream = stream
        self._unpacking = unpacking

    def take(self, size: int) -> bytes:
        """Exactly this many bytes."""
        data = self._stream.read(size)
        self._unpacking.count(len(data))
        if len(data) < size:
            raise EOFError("it ends before its end mark")
        return data

    def extended(self, size: int) -> bytes:
        """An extended header's body."""
        if size > _MAX_EXTENDED:
            raise self._unpacking.too_large(f"an extended header of more than {_MAX_EXTENDED} bytes")
        if size < 0:
            raise ValueError("a size is negative")
        return self.take(size + -size % _BLOCK)[:size]

    def finish(self) -> None:
        """Only zeros follow the end mark: what else lay there, other tools might read."""
        while data := self._stream.read(MiB):
            self._unpacking.count(len(data))
            if data.count(0) < len(data):
                raise ValueError("data follows its end mark")


class _Member:
    """One member's content."""

    def __init__(self, stream: Source, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(min(size, self._left))
        if self._left and not data:
            raise EOFError("it ends within a member")
        self._left -= len(data)
        return data


def _name(body: bytes) -> dict[str, str]:
    return {"path": body.partition(b"\0")[0].decode("utf-8", "surrogateescape")}


def _records(body: bytes) -> dict[str, str]:
    """What matters here of pax's `<length> <key>=<value>` lines, where the length counts the whole line."""
    found: dict[str, str] = {}
    position = 0
    while position < len(body):
        digits = body[position : position + _MAX_DIGITS].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = body[position : position + length]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if not key or not equals or len(record) < length or not value.endswith(b"\n"):
            raise ValueError("an extended header is not well formed")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
            found[key.decode("utf-8")] = value[:-1].decode("utf-8", "surrogateescape")
        position += length
    return found


def _size(given: str | None, own: int) -> int:
    if given is not None and not (given.isascii() and given.isdigit() and len(given) <= _MAX_DIGITS):
        raise ValueError("a size is no number")
    size = own if given is None else int(given)
    if size < 0:
        raise ValueError("a size is negative")
    return size
