"""Serving stored files: conditional requests and ranges."""

from collections.abc import Mapping

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from loramend.contracts.errors import LoramendError
from service.api.negotiation import matches_any
from service.api.problems import problem_response, request_id_of
from service.api.ranges import parse_range, range_applies
from service.jobs.records import BlobRef
from service.jobs.storage import Storage


def blob_response(
    request: Request,
    storage: Storage,
    ref: BlobRef,
    *,
    etag: str,
    media_type: str,
    headers: Mapping[str, str],
) -> Response:
    """The stored file as the answer to GET or HEAD; 206, 304 or 416 where the request's headers ask for it.

    `etag` is strong and quoted. Raises LoramendError `storage_unavailable` where the file cannot be opened.
    """
    common = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache", **headers}
    if matches_any(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=common)
    wanted = None
    if range_applies(request.headers.get("if-range"), etag):
        try:
            wanted = parse_range(request.headers.get("range"), ref.size)
        except LoramendError as error:
            problem = error.problem(request_id_of(request))
            return problem_response(problem, {**headers, "Content-Range": f"bytes */{ref.size}"})
    start, end = wanted or (0, ref.size)
    common["Content-Length"] = str(end - start)
    status = 200
    if wanted is not None:
        status = 206
        common["Content-Range"] = f"bytes {start}-{end - 1}/{ref.size}"
    if request.method == "HEAD":
        return Response(status_code=status, media_type=media_type, headers=common)
    return StreamingResponse(storage.open(ref, start, end), status, common, media_type)
