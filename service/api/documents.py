"""Answers made of pydantic models."""

import hashlib
from collections.abc import Mapping

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from service.api.negotiation import matches_any


def json_response(
    model: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The model as application/json."""
    return Response(model.model_dump_json(), status, dict(headers or {}), "application/json")


def tagged_response(request: Request, model: BaseModel) -> Response:
    """The same with a weak entity tag, or 304 where the client has it already."""
    body = model.model_dump_json()
    etag = f'W/"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if matches_any(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, "application/json")
