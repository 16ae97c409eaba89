"""The outermost layer around every request: its ID, its log line, its numbers, and the net under it."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loramend.contracts.errors import LoramendError
from service.api.caller import Caller
from service.api.headers import secure
from service.api.metrics import Metrics
from service.api.problems import problem_response

_ACCESS = logging.getLogger("service.access")
_ERRORS = logging.getLogger("service.errors")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestContext:
    """ASGI middleware.

    A caller's X-Request-ID is kept where it is 1 to 128 of `A-Za-z0-9._-`, and made otherwise. Logs
    one line a request; the query string is left out, since it may hold a secret.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0
        sent = 0
        started = time.perf_counter()

        async def send_on(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                secure(headers)
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, send_on)
        except ClientDisconnect:
            if status:
                raise
        except Exception:
            _ERRORS.exception("unexpected error", extra={"request_id": request_id})
            if status:
                raise
            problem = LoramendError(
                "internal_error", "Something went wrong here; the server's log has it under this request_id."
            ).problem(request_id)
            await problem_response(problem)(scope, receive, send_on)
        finally:
            seconds = time.perf_counter() - started
            # 499 is nginx's code for a client that left before an answer began.
            self.metrics.request(scope["method"], _template(scope), status or 499, seconds)
            client = scope.get("client")
            caller: Caller | None = scope["state"].get("caller")
            _ACCESS.info(
                "request",
                extra={
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status or 499,
                    "seconds": round(seconds, 6),
                    "bytes": sent,
                    "request_id": request_id,
                    "client": client[0] if client else None,
                    "key": caller.key_id if caller else None,
                },
            )


def _template(scope: Scope) -> str:
    """The matched route's path template, so that a metric's label has few values."""
    return getattr(scope.get("route"), "path", "unmatched")
