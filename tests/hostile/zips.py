"""Zip archives that must not be unpacked."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from loramend.adapter.limits import MiB
from tests.adapter import build
from tests.hostile.case import LIMITS, Case, archive, good_files, good_weights


@dataclass(frozen=True)
class Member:
    """A member as a zip may claim it to be: what is None follows from the rest. raw: data is compressed."""

    name: bytes
    data: bytes = b""
    method: int = 0
    raw: bool = False
    local_name: bytes | None = None
    flags: int = 0x800
    mode: int = 0
    size: int | None = None
    crc: int | None = None
    offset: int | None = None
    extra: bytes = b""
    compressed_size: int | None = None


def zipped(members: Iterable[Member], prefix: bytes = b"") -> bytes:
    """A zip written by hand; a member with an offset has no bytes of its own."""
    body, directory, count = bytearray(prefix), bytearray(), 0
    for m in members:
        packed = m.data
        if m.method == 8 and not m.raw:
            deflate = zlib.compressobj(9, wbits=-15)
            packed = deflate.compress(m.data) + deflate.flush()
        size = len(m.data) if m.size is None else m.size
        crc = zlib.crc32(m.data) if m.crc is None else m.crc
        local_name = m.name if m.local_name is None else m.local_name
        offset = len(body) if m.offset is None else m.offset
        compressed = len(packed) if m.compressed_size is None else m.compressed_size
        sizes = struct.pack("<III", crc, compressed, size)
        common = struct.pack("<HHHHH", 20, m.flags, m.method, 0, 0x21) + sizes
        if m.offset is None:
            body += b"PK\x03\x04" + common + struct.pack("<HH", len(local_name), 0) + local_name + packed
        directory += b"PK\x01\x02" + struct.pack("<H", 0x31E) + common
        directory += struct.pack("<HHHHHII", len(m.name), len(m.extra), 0, 0, 0, m.mode << 16, offset)
        directory += m.name + m.extra
        count += 1
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(body), 0)
    return bytes(body + directory + end)


def good_members() -> list[Member]:
    return [Member(name.encode(), data, method=8) for name, data in good_files().items()]


def with_member(*more: Member) -> bytes:
    """A sound adapter, and something beside it."""
    return zipped([*good_members(), *more])


def named(*names: str) -> bytes:
    return with_member(*(Member(name.encode(), b"x") for name in names))


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save(build.tensors(), buffer)
    return buffer.getvalue()


def lzma() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as opened:
        for name, data in good_files().items():
            opened.writestr(name, data)
    return buffer.getvalue()


def _overlapping() -> bytes:
    """Every member names the same compressed megabyte."""
    kernel = Member(b"0", bytes(MiB), method=8)
    first = zipped([kernel])
    packed = first.index(b"PK\x01\x02") - 31
    shared = [
        Member(b"%d" % i, bytes(MiB), method=8, offset=0, local_name=b"0", compressed_size=packed)
        for i in range(1, 50)
    ]
    return zipped([kernel, *shared])


def _quoting() -> bytes:
    """Each member's data begins with the next one's header, so that all end in the same bytes."""
    inner = zipped([Member(b"inner", bytes(MiB), method=8)])
    local = inner[: inner.index(b"PK\x01\x02")]
    outer = Member(b"outer", local)
    inside = Member(b"inner", bytes(MiB), method=8, offset=30 + len(b"outer"))
    return zipped([outer, inside])


def _directory_of_millions() -> bytes:
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 8 * MiB, 30, 0)
    return b"PK\x03\x04" + bytes(26) + bytes(8 * MiB) + end


def zips() -> list[Case]:
    link = stat.S_IFLNK | 0o777
    whole = zipped(good_members())
    wide = struct.pack("<HHQQ", 1, 16, 2**63, 2**62)
    inner = zipped([Member(b"zeros", bytes(MiB), method=8)])
    return [
        archive("zip-traversal", "archive_unsafe", named("../escaped")),
        archive("zip-traversal-inside", "archive_unsafe", named("a/b/../../../escaped")),
        archive("zip-absolute", "archive_unsafe", named("/tmp/loramend-hostile-escaped")),
        archive("zip-double-slash", "archive_unsafe", named("//host/share")),
        archive("zip-drive", "archive_unsafe", named("C:/escaped")),
        archive("zip-backslash", "archive_unsafe", named("..\\escaped")),
        archive("zip-stream", "archive_unsafe", named("adapter_config.json:stream")),
        archive("zip-symlink", "archive_unsafe", with_member(Member(b"link", b"/etc/passwd", mode=link))),
        archive(
            "zip-through-a-symlink",
            "archive_unsafe",
            zipped([Member(b"up", b"..", mode=link), Member(b"up/escaped", b"x")]),
        ),
        archive("zip-device", "archive_unsafe", with_member(Member(b"null", b"", mode=stat.S_IFCHR | 0o666))),
        archive("zip-pipe", "archive_unsafe", with_member(Member(b"pipe", b"", mode=stat.S_IFIFO | 0o666))),
        archive("zip-encrypted", "archive_unsafe", with_member(Member(b"secret", b"x" * 20, flags=0x801))),
        archive(
            "zip-bomb", "archive_too_large", lambda: with_member(Member(b"zeros", bytes(65 * MiB), method=8))
        ),
        archive(
            "zip-of-many-bombs",
            "archive_too_large",
            lambda: with_member(*(Member(b"%d" % i, bytes(8 * MiB), method=8) for i in range(9))),
        ),
        archive("zip-of-zips", "adapter_not_found", zipped(Member(b"%d.zip" % i, inner) for i in range(9))),
        archive("zip-overlap", "archive_unsafe", _overlapping),
        archive("zip-overlap-quoting", "archive_unsafe", _quoting),
        archive(
            "zip-data-in-directory",
            "archive_unsafe",
            with_member(Member(b"long", b"x", compressed_size=60, size=60)),
        ),
        archive("zip-truncated", "archive_invalid", whole[:-30]),
        archive("zip-without-directory", "archive_invalid", whole[: whole.index(b"PK\x01\x02")]),
        archive("zip-duplicate", "archive_unsafe", named("adapter_config.json")),
        archive("zip-case-collision", "archive_unsafe", named("Adapter_Config.JSON")),
        archive("zip-nfc-and-nfd", "archive_unsafe", named("\u00e4", "a\u0308")),
        archive("zip-folded-collision", "archive_unsafe", named("stra\u00dfe", "STRASSE")),
        archive("zip-dot-collision", "archive_unsafe", named("./adapter_config.json")),
        archive("zip-control-characters", "archive_unsafe", named("\x1b[2Jadapter")),
        archive("zip-newline", "archive_unsafe", named("a\nb")),
        archive("zip-bidi", "archive_unsafe", named("adapter\u202enosj.exe")),
        archive("zip-zero-width", "archive_unsafe", named("adapter_\u200bconfig.json")),
        archive("zip-nul", "archive_unsafe", with_member(Member(b"notes.txt\0.exe", b"x"))),
        archive("zip-long-name", "archive_unsafe", named("x" * 513)),
        archive("zip-long-part", "archive_unsafe", named("\U0001f600" * 64)),
        archive("zip-nameless", "archive_unsafe", named(".")),
        archive("zip-below-a-file", "archive_unsafe", named("adapter_config.json/x")),
        archive(
            "zip-two-names",
            "archive_invalid",
            with_member(Member(b"notes.txt", b"x", local_name=b"../evil.x")),
        ),
        archive("zip-crc", "archive_invalid", with_member(Member(b"a", b"x" * 9, crc=1))),
        archive(
            "zip-size-too-small",
            "archive_invalid",
            lambda: with_member(Member(b"zeros", bytes(4 * MiB), method=8, size=10)),
        ),
        archive(
            "zip-wide-sizes",
            "archive_unsafe",
            with_member(Member(b"a", b"x", size=0xFFFFFFFF, compressed_size=0xFFFFFFFF, extra=wide)),
        ),
        archive(
            "zip-broken-deflate", "archive_invalid", with_member(Member(b"a", b"\xff" * 40, 8, raw=True))
        ),
        archive("zip-unknown-method", "archive_invalid", with_member(Member(b"a", b"x", 99))),
        archive("zip-lzma", "archive_invalid", lzma()),
        archive(
            "zip-of-many-members",
            "archive_too_large",
            lambda: zipped(Member(b"%d" % index) for index in range(LIMITS.max_members + 1)),
        ),
        archive(
            "zip-of-many-folders",
            "archive_too_large",
            lambda: zipped(
                Member(b"%d/" % index + b"d/" * 30 + b"f") for index in range(LIMITS.max_members // 30 + 1)
            ),
        ),
        archive("zip-of-deep-folders", "archive_unsafe", named("d/" * 240 + "f")),
        archive("zip-directory-of-millions", "archive_too_large", _directory_of_millions),
        archive("zip-behind-a-page", "archive_invalid", b"<html>" + whole),
        archive("zip-behind-safetensors", "archive_invalid", good_weights() + whole),
        archive("zip-of-torch", "pickle_refused", torch_file()),
        archive("zip-empty", "archive_invalid", zipped([])),
    ]
