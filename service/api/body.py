"""Reading request bodies under a running cap: JSON documents, and multipart forms whose files go to disk."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import anyio.to_thread
from fastapi import Request
from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from loramend.contracts.data import DATA_ROLES
from loramend.contracts.errors import RequestError

FILE_PARTS = frozenset({"adapter", *DATA_ROLES})
JSON_PARTS = frozenset({"request", "config"})
MAX_PART_HEADER_BYTES = 8192


def media_type_of(request: Request) -> tuple[str, dict[bytes, bytes]]:
    """The body's media type in lower case, and its parameters."""
    media, options = parse_options_header(request.headers.get("content-type", ""))
    return media.decode("latin-1").strip().lower(), options


async def capped(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body's chunks.

    Raises RequestError `payload_too_large` as soon as more than `limit` bytes came or are said to come.
    """
    declared = request.headers.get("content-length", "")
    received = int(declared) if declared.isdecimal() and len(declared) < 20 else 0
    if received <= limit:
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit:
                break
            yield chunk
        else:
            return
    raise RequestError("payload_too_large", f"The body is over the limit of {limit} bytes.")


def parse_object(raw: bytes, where: str | None = None) -> dict[str, Any]:
    """A JSON object. Raises RequestError `request_invalid`, with line and column where it is not JSON."""
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError("request_invalid", f"Not valid JSON: {error}.", where=where) from None
    if not isinstance(value, dict):
        raise RequestError("request_invalid", "Must be a JSON object.", where=where)
    return value


async def read_document(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes."""
    return b"".join([chunk async for chunk in capped(request, limit)])


@dataclass(frozen=True)
class FormFile:
    """A file part on disk; `filename` is the client's."""

    path: Path
    filename: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Form:
    """A received multipart form: the file parts and the JSON parts, by name."""

    files: dict[str, FormFile] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)


async def read_form(request: Request, folder: Path, *, max_bytes: int, max_document_bytes: int) -> Form:
    """Receive a multipart form with an `adapter` file, files of text by their roles, and optional `request`
    and `config` JSON parts.

    Files are written to `folder` as they come; each JSON part is held in memory up to `max_document_bytes`.
    Raises RequestError `request_invalid` for another part, a part twice, a missing adapter or broken framing,
    and `payload_too_large` past `max_bytes` in all.
    """
    _, options = media_type_of(request)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _malformed("the Content-Type has no boundary")
    receiver = _Receiver(folder, max_document_bytes)
    try:
        parser = MultipartParser(boundary, receiver.callbacks())
        async for chunk in capped(request, max_bytes):
            if chunk:
                await anyio.to_thread.run_sync(parser.write, chunk)
        parser.finalize()
    except FormParserError as error:
        raise _malformed(str(error)) from None
    finally:
        receiver.close()
    return await anyio.to_thread.run_sync(receiver.result)


def _malformed(what: str) -> RequestError:
    return RequestError("request_invalid", f"Not a valid multipart form: {what}.")


class _OpenFile:
    """A file part while it comes."""

    def __init__(self, path: Path, filename: str) -> None:
        self._path = path
        self._filename = filename
        self._file: BinaryIO = path.open("wb")
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, piece: memoryview) -> None:
        self._file.write(piece)
        self._digest.update(piece)
        self._size += len(piece)

    def close(self) -> FormFile:
        self._file.close()
        return FormFile(self._path, self._filename, self._digest.hexdigest(), self._size)


class _Receiver:
    """The callbacks of one multipart parse."""

    def __init__(self, folder: Path, max_document_bytes: int) -> None:
        self._folder = folder
        self._max_document_bytes = max_document_bytes
        self._files: dict[str, FormFile] = {}
        self._open: _OpenFile | None = None
        self._seen: set[str] = set()
        self._raw: dict[str, bytearray] = {}
        self._part = ""
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._ended = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": lambda data, start, end: self._on_header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._on_header(1, data[start:end]),
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self.close,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header(self, side: int, piece: bytes) -> None:
        self._header[side].extend(piece)
        if len(self._header[side]) > MAX_PART_HEADER_BYTES:
            raise _malformed("a part's header is too long")

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name not in FILE_PARTS | JSON_PARTS:
            known = ", ".join(sorted(FILE_PARTS | JSON_PARTS))
            raise RequestError("request_invalid", f"Unknown part; a form has {known}.", where=f"/{name}")
        if name in self._seen:
            raise RequestError("request_invalid", "This part came twice.", where=f"/{name}")
        self._seen.add(name)
        self._part = name
        if name in FILE_PARTS:
            filename = options.get(b"filename", b"").decode("utf-8", "replace")
            # Named by the part, never by the client.
            self._open = _OpenFile(self._folder / name, filename)
        else:
            self._raw[name] = bytearray()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self._part in JSON_PARTS:
            raw = self._raw[self._part]
            raw.extend(piece)
            if len(raw) > self._max_document_bytes:
                limit = self._max_document_bytes
                raise RequestError(
                    "payload_too_large",
                    f"The part is over the limit of {limit} bytes.",
                    where=f"/{self._part}",
                )
        elif self._open is not None:
            self._open.write(piece)

    def _on_end(self) -> None:
        self._ended = True

    def close(self) -> None:
        if self._open is not None:
            self._files[self._part] = self._open.close()
            self._open = None

    def result(self) -> Form:
        if not self._ended:
            raise _malformed("it ends in the middle of a part")
        if "adapter" not in self._files:
            raise RequestError("request_invalid", "The form has no adapter file.", where="/adapter")
        return Form(
            self._files, {name: parse_object(bytes(raw), f"/{name}") for name, raw in self._raw.items()}
        )
