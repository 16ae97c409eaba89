"""PUT /uploads/{sha256}: send a file once, name it in requests by its digest."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
import anyio.from_thread
import anyio.to_thread
from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from loramend.contracts.errors import RequestError
from loramend.contracts.names import Sha256
from service.api.body import capped
from service.api.caller import Asker, Caller
from service.api.documents import json_response
from service.api.problems import documented
from service.api.schema import header, ok
from service.api.state import Services, Use
from service.jobs.records import BlobRef

# Well under the 30 s or so that clients wait for an answer.
_PLACE_SECONDS = 10.0

router = APIRouter(tags=["uploads"])


class Upload(BaseModel):
    """A file that requests may name as `source.upload`, or as `upload` of their data."""

    model_config = ConfigDict(extra="forbid")

    sha256: Sha256
    size: int = Field(description="Bytes.")
    kept_seconds: int = Field(description="How long it is kept, unless a job uses it.")


_LOCATION = {"Location": header("The upload's own address.")}


@router.put(
    "/uploads/{sha256}",
    summary="Upload an adapter or a file of text",
    responses={
        **ok(Upload, "It was there already; its time starts anew", headers=_LOCATION),
        **ok(Upload, "Stored", status=201, headers=_LOCATION),
        **documented(
            "request_invalid",
            "digest_mismatch",
            "payload_too_large",
            "request_timeout",
            "quota_exceeded",
            "storage_unavailable",
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A .zip, .tar, .tar.gz or .safetensors file, or a .jsonl file of text.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put_upload(
    services: Use,
    caller: Asker,
    request: Request,
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Of the body, in hex.")],
) -> Response:
    """The raw body is streamed to the storage; what does not have the digest in the address is not kept."""
    chunks = aiter(capped(request, services.settings.max_upload_bytes))

    async def following() -> bytes | None:
        return await anext(chunks, None)

    def pull() -> Iterator[bytes]:
        """The body's chunks, for the thread that stores them."""
        while True:
            chunk = anyio.from_thread.run(following)
            if chunk is None:
                return
            yield chunk

    async with _place(services):
        ref, existed = await anyio.to_thread.run_sync(
            _store, services, caller, sha256, pull(), limiter=anyio.CapacityLimiter(1)
        )
    services.metrics.uploaded(ref.size)
    upload = Upload(sha256=ref.sha256, size=ref.size, kept_seconds=int(services.settings.upload_seconds))
    headers = {"Location": f"/uploads/{ref.sha256}"}
    return json_response(upload, status=200 if existed else 201, headers=headers)


@asynccontextmanager
async def _place(services: Services) -> AsyncIterator[None]:
    """One of the places for uploads. Raises RequestError `overloaded` where none gets free in time: better
    than to let the client run into its own time limit."""
    mine = object()
    try:
        with anyio.fail_after(_PLACE_SECONDS):
            await services.uploads.acquire_on_behalf_of(mine)
    except TimeoutError:
        places = services.settings.max_concurrent_uploads
        raise RequestError("overloaded", f"{places} uploads are under way. Try again shortly.") from None
    try:
        yield
    finally:
        services.uploads.release_on_behalf_of(mine)


def _store(services: Services, caller: Caller, sha256: str, chunks: Iterator[bytes]) -> tuple[BlobRef, bool]:
    seconds = services.settings.upload_seconds
    services.store.blobs.hold([sha256], "upload", seconds)
    existed = services.upload(sha256, caller) is not None
    ref = services.storage.put_stream(chunks, max_bytes=services.settings.max_upload_bytes, expect=sha256)
    if caller.owner is not None:
        services.store.blobs.grant(sha256, caller.owner, seconds)
    return ref, existed
