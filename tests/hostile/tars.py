"""Tar archives that must not be unpacked."""

import gzip
import io
import tarfile
from dataclasses import dataclass

from loramend.adapter.limits import MiB
from tests.hostile.case import LIMITS, Case, archive, good_files
from tests.hostile.zips import good_members, zipped

END = bytes(1024)


@dataclass(frozen=True)
class Entry:
    """One header and what follows it. size: as claimed, where it is not the data's."""

    name: str | bytes
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    link: str = ""
    size: int | None = None

    def blocks(self) -> bytes:
        name = self.name.decode("utf-8", "surrogateescape") if isinstance(self.name, bytes) else self.name
        info = tarfile.TarInfo(name)
        info.type, info.linkname = self.type, self.link
        info.size = len(self.data) if self.size is None else self.size
        wide = info.size < 0 or info.size >= 8**11
        header = info.tobuf(tarfile.GNU_FORMAT if wide else tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
        return header + self.data + bytes(-len(self.data) % 512)


def entries() -> list[Entry]:
    return [Entry(name, data) for name, data in good_files().items()]


def tarred(*more: Entry, end: bytes = END) -> bytes:
    """A sound adapter, and something beside it."""
    return b"".join(entry.blocks() for entry in (*entries(), *more)) + end


def special(kind: bytes, link: str = "") -> bytes:
    return tarred(Entry("special", type=kind, link=link))


def pax(records: bytes, name: str = "innocent", kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header before a harmless member."""
    return tarred(Entry("pax", records, kind), Entry(name, b"x"))


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def _bad_checksum() -> bytes:
    content = bytearray(tarred())
    content[0] ^= 1
    return bytes(content)


def _sparse_gnu() -> bytes:
    """Old GNU's form: a terabyte of holes, in chained blocks of maps."""
    block = bytearray(Entry("holes", type=tarfile.GNUTYPE_SPARSE).blocks())
    block[482] = 1  # more maps follow
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return tarred(end=bytes(block) + (bytes(504) + b"\x01" + bytes(7)) * 2000 + END)


def _zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as opened:
        opened.write(content)
    return buffer.getvalue()


def tars() -> list[Case]:
    whole = tarred()
    packed = _zipped(whole)
    sparse = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.realsize", b"9" * 15)
    collide = [Entry("A", b"1"), Entry("a", b"2")]
    return [
        archive("tar-traversal", "archive_unsafe", tarred(Entry("../escaped", b"x"))),
        archive("tar-absolute", "archive_unsafe", tarred(Entry("/tmp/loramend-hostile-escaped", b"x"))),
        archive("tar-folder-above", "archive_unsafe", tarred(Entry("a/../..", type=tarfile.DIRTYPE))),
        archive("tar-symlink", "archive_unsafe", special(tarfile.SYMTYPE, "/etc/passwd")),
        archive(
            "tar-through-a-symlink",
            "archive_unsafe",
            tarred(Entry("up", type=tarfile.SYMTYPE, link=".."), Entry("up/escaped", b"x")),
        ),
        archive("tar-hard-link", "archive_unsafe", special(tarfile.LNKTYPE, "/etc/passwd")),
        archive("tar-hard-link-inside", "archive_unsafe", special(tarfile.LNKTYPE, "adapter_config.json")),
        archive("tar-character-device", "archive_unsafe", special(tarfile.CHRTYPE)),
        archive("tar-block-device", "archive_unsafe", special(tarfile.BLKTYPE)),
        archive("tar-pipe", "archive_unsafe", special(tarfile.FIFOTYPE)),
        archive("tar-contiguous", "archive_unsafe", special(tarfile.CONTTYPE)),
        archive("tar-unknown-type", "archive_unsafe", special(b"Z")),
        archive("tar-sparse-gnu", "archive_unsafe", _sparse_gnu()),
        archive("tar-sparse-pax", "archive_unsafe", pax(sparse)),
        archive("tar-pax-traversal", "archive_unsafe", pax(record(b"path", b"../escaped"))),
        archive("tar-pax-nul", "archive_unsafe", pax(record(b"path", b"a\0b"))),
        archive("tar-pax-size", "archive_invalid", pax(record(b"size", b"9" * 18))),
        archive("tar-pax-size-negative", "archive_invalid", pax(record(b"size", b"-1"))),
        archive(
            "tar-pax-global-path",
            "archive_invalid",
            pax(record(b"path", b"adapter_config.json"), kind=tarfile.XGLTYPE),
        ),
        archive("tar-pax-malformed", "archive_invalid", pax(b"3 " * 20_000 + b"a=b\n")),
        archive("tar-pax-digits", "archive_invalid", pax(b"1" * 60_000)),
        archive("tar-pax-of-megabytes", "archive_too_large", lambda: pax(record(b"comment", bytes(MiB)))),
        archive(
            "tar-pax-chain",
            "archive_too_large",
            lambda: _zipped(
                tarred(*[Entry("pax", record(b"comment", bytes(60_000)), tarfile.XHDTYPE)] * 1200)
            ),
        ),
        archive(
            "tar-long-name-traversal",
            "archive_unsafe",
            tarred(Entry("long", b"../escaped\0", tarfile.GNUTYPE_LONGNAME), Entry("innocent", b"x")),
        ),
        archive(
            "tar-long-link", "archive_unsafe", tarred(Entry("long", b"/etc\0", tarfile.GNUTYPE_LONGLINK))
        ),
        archive("tar-duplicate", "archive_unsafe", tarred(Entry("adapter_config.json", b"{}"))),
        archive("tar-case-collision", "archive_unsafe", tarred(*collide)),
        archive("tar-not-utf8", "archive_unsafe", tarred(Entry(b"\xff\xfe", b"x"))),
        archive("tar-bidi", "archive_unsafe", tarred(Entry("a\u202eb", b"x"))),
        archive("tar-checksum", "archive_invalid", _bad_checksum()),
        archive("tar-negative-size", "archive_invalid", tarred(Entry("a", size=-512))),
        archive("tar-endless-size", "archive_invalid", tarred(Entry("a", size=2**62))),
        archive("tar-truncated", "archive_invalid", whole[:700]),
        archive("tar-without-end", "archive_invalid", tarred(end=b"")),
        archive("tar-and-zip", "archive_invalid", whole + zipped(good_members())),
        archive(
            "tar-of-many-members",
            "archive_too_large",
            lambda: _zipped(tarred(*(Entry(str(index)) for index in range(LIMITS.max_members)))),
        ),
        archive("gzip-bomb", "archive_too_large", lambda: _zipped(tarred(Entry("zeros", bytes(65 * MiB))))),
        archive("gzip-bomb-after-the-end", "archive_too_large", lambda: _zipped(whole + bytes(65 * MiB))),
        archive("gzip-in-gzip", "archive_invalid", _zipped(packed)),
        archive("gzip-of-nothing", "archive_invalid", _zipped(b"")),
        archive("gzip-of-an-empty-tar", "adapter_not_found", _zipped(END)),
        archive("gzip-truncated", "archive_invalid", packed[:-12]),
        archive("gzip-with-more-behind", "archive_invalid", packed + b"#!/bin/sh"),
        archive("gzip-checksum", "archive_invalid", packed[:-8] + bytes(8)),
    ]
