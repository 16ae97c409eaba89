"""Every error as problem details (RFC 9457)."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from loramend.contracts.errors import CODES, ErrorCode, LoramendError, Problem, ProblemItem, RequestError
from service.jobs.disk import disk_full, is_disk_full

MEDIA_TYPE = "application/problem+json"
_LOG = logging.getLogger("service.errors")

_FROM_STATUS: dict[int, ErrorCode] = {
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "payload_too_large",
    415: "unsupported_media_type",
}
_RETRY_SECONDS = {429: "30", 503: "5"}
_RETRY_HEADER = {"description": "Seconds until asking again makes sense.", "schema": {"type": "integer"}}
_ANYWHERE: tuple[ErrorCode, ...] = (
    "unauthorized",
    "forbidden",
    "rate_limited",
    "host_not_allowed",
    "internal_error",
    "broker_unavailable",
    "overloaded",
    "disk_full",
)


class InvalidRequestError(RequestError):
    """`request_invalid` with one item for each thing that was wrong."""

    def __init__(self, items: Sequence[ProblemItem]) -> None:
        first = items[0]
        more = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
        super().__init__("request_invalid", f"{first.detail}{more}", where=first.pointer)
        self.items = tuple(items)

    def problem(self, request_id: str | None = None) -> Problem:
        return super().problem(request_id).model_copy(update={"errors": list(self.items)})


class AnswerError(RequestError):
    """A request error whose answer carries headers of its own."""

    def __init__(self, code: ErrorCode, detail: str, headers: Mapping[str, str]) -> None:
        super().__init__(code, detail)
        self.headers = dict(headers)


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The problem as an HTTP response; one that goes away by itself says when to try again."""
    seconds = _RETRY_SECONDS.get(problem.status)
    headers = {**({"Retry-After": seconds} if seconds else {}), **(headers or {})}
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def request_id_of(request: Request) -> str | None:
    """The request's ID, as the outermost middleware set it."""
    return getattr(request.state, "request_id", None)


def pointer(error: ErrorDetails, document: Any) -> str:
    """A JSON pointer (RFC 6901) into `document` for the place of pydantic's error.

    pydantic also names union branches in `loc`, which the document does not hold; they are left out.
    """
    parts: list[str | int] = []
    here = document
    for part in error["loc"]:
        held = part in here if isinstance(here, dict) else isinstance(here, list) and part in range(len(here))
        if held:
            here = here[part]
            parts.append(part)
    if error["type"] == "missing":
        parts.append(error["loc"][-1])
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _sentence(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].upper() + message[1:]


def invalid_document(error: ValidationError, document: Any) -> InvalidRequestError:
    """What pydantic found wrong in a JSON document, as one error; values are not repeated."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return InvalidRequestError(
        [ProblemItem(pointer=pointer(item, document), detail=_sentence(item)) for item in found]
    )


def install(app: FastAPI) -> None:
    """Answer every error of this application with a problem; nothing of an unexpected one leaks."""

    @app.exception_handler(LoramendError)
    async def known(request: Request, error: LoramendError) -> Response:
        problem = error.problem(request_id_of(request))
        if problem.status >= 500:
            _LOG.error("%s: %s", problem.code, error, extra={"request_id": problem.request_id})
        return problem_response(problem, error.headers if isinstance(error, AnswerError) else None)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        items = [
            ProblemItem(pointer="".join(f"/{part}" for part in item["loc"]), detail=_sentence(item))
            for item in error.errors()
        ]
        return problem_response(InvalidRequestError(items).problem(request_id_of(request)))

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        code = _FROM_STATUS.get(
            error.status_code, "request_invalid" if error.status_code < 500 else "internal_error"
        )
        details = {
            "not_found": f"There is nothing at {request.url.path}.",
            "method_not_allowed": f"{request.method} is not served at {request.url.path}.",
        }
        headers = dict(error.headers or {})
        if code == "method_not_allowed":
            headers["Allow"] = ", ".join(_methods_of(request))
        detail = details.get(code) or CODES[code].title
        return problem_response(RequestError(code, detail).problem(request_id_of(request)), headers)

    @app.exception_handler(RedisError)
    async def broker(request: Request, error: RedisError) -> Response:
        return broker_down(error, request_id_of(request))

    @app.exception_handler(OSError)
    async def disk(request: Request, error: OSError) -> Response:
        if not is_disk_full(error):
            raise error
        return await known(request, disk_full("The server's"))


def broker_down(error: RedisError, request_id: str | None) -> Response:
    """The answer where the job store gave none, or takes nothing because its disk is full."""
    _LOG.error("broker: %s", error, extra={"request_id": request_id})
    if str(error).startswith("MISCONF"):
        return problem_response(disk_full("The job store's").problem(request_id))
    down = RequestError("broker_unavailable", "The job store does not answer; try again shortly.")
    return problem_response(down.problem(request_id))


def _methods_of(request: Request) -> list[str]:
    """Every method that some route serves at this path."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def documented(*codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for these codes and those that any call may give, by status."""
    grouped: dict[int, list[ErrorCode]] = {}
    for code in (*codes, *_ANYWHERE):
        grouped.setdefault(CODES[code].status, []).append(code)
    return {
        status: {
            "description": "; ".join(CODES[code].title for code in members),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in members},
                }
            },
            **({"headers": {"Retry-After": _RETRY_HEADER}} if status in _RETRY_SECONDS else {}),
        }
        for status, members in sorted(grouped.items())
    }


def examples() -> dict[str, dict[str, Any]]:
    """A problem for each code, for the OpenAPI document's components."""
    return {code: {"summary": info.title, "value": _example(code)} for code, info in CODES.items()}


def _example(code: ErrorCode) -> dict[str, Any]:
    problem = RequestError(code, CODES[code].title + ".").problem("4f7c2a9e1b0d4c58a3e6f1d2c4b5a697")
    return problem.model_dump(mode="json", exclude_none=True)
