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

from loramend.contracts.errors import RequestError

FILE_PARTS = frozenset({"adapter"})
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


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """The body as a JSON object of at most `limit` bytes."""
    return parse_object(b"".join([chunk async for chunk in capped(request, limit)]))


@dataclass
class Form:
    """A received multipart form: the adapter's file on disk with its name and sha256, and the JSON parts."""

    path: Path
    filename: str = ""
    sha256: str = ""
    size: int = 0
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)


async def read_form(request: Request, folder: Path, *, max_bytes: int, max_document_bytes: int) -> Form:
    """Receive a multipart form with an `adapter` file and optional `request` and `config` JSON parts.

    The file is written to `folder` as it comes; each JSON part is held in memory up to `max_document_bytes`.
    Raises RequestError `request_invalid` for another part, a part twice, a missing adapter or broken framing,
    and `payload_too_large` past `max_bytes` in all.
    """
    _, options = media_type_of(request)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _malformed("the Content-Type has no boundary")
    receiver = _Receiver(folder / "adapter", max_document_bytes)
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
    return receiver.result()


def _malformed(what: str) -> RequestError:
    return RequestError("request_invalid", f"Not a valid multipart form: {what}.")


class _Receiver:
    """The callbacks of one multipart parse."""

    def __init__(self, path: Path, max_document_bytes: int) -> None:
        self._form = Form(path)
        self._max_document_bytes = max_document_bytes
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
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
            self._form.filename = options.get(b"filename", b"").decode("utf-8", "replace")
            self._file = self._form.path.open("wb")
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
        elif self._file is not None:
            self._file.write(piece)
            self._digest.update(piece)
            self._form.size += len(piece)

    def _on_end(self) -> None:
        self._ended = True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def result(self) -> Form:
        if not self._ended:
            raise _malformed("it ends in the middle of a part")
        if "adapter" not in self._seen:
            raise RequestError("request_invalid", "The form has no adapter file.", where="/adapter")
        self._form.sha256 = self._digest.hexdigest()
        self._form.documents = {name: parse_object(bytes(raw), f"/{name}") for name, raw in self._raw.items()}
        return self._form
