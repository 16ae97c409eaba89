"""Keeps clients that are many, or slow, from using the service up."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loramend.contracts.errors import RequestError
from service.api.problems import problem_response

# A probe that asks nothing of anybody must not fail because others ask much.
_ALWAYS = "/healthz"


class Busy:
    """ASGI middleware.

    most          requests worked on at a time, event streams among them; one more gets 503 `overloaded`
    body_seconds  longest wait for the next piece of a body; then its endpoint meets RequestError
                  `request_timeout`
    """

    def __init__(self, app: ASGIApp, *, most: int, body_seconds: float) -> None:
        self.app = app
        self._most = most
        self._body_seconds = body_seconds
        self._now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == _ALWAYS:
            await self.app(scope, receive, send)
            return
        if self._now >= self._most:
            error = RequestError(
                "overloaded", f"{self._most} requests are being answered. Try again shortly."
            )
            problem = error.problem(scope.get("state", {}).get("request_id"))
            await problem_response(problem)(scope, receive, send)
            return
        self._now += 1
        try:
            await self.app(scope, self._impatient(receive), send)
        finally:
            self._now -= 1

    def _impatient(self, receive: Receive) -> Receive:
        whole = False

        async def impatient() -> Message:
            nonlocal whole
            if whole:  # what comes now is the client's leaving
                return await receive()
            try:
                async with asyncio.timeout(self._body_seconds):
                    message = await receive()
            except TimeoutError:
                raise RequestError(
                    "request_timeout", f"Nothing of the body came for {self._body_seconds:g} s."
                ) from None
            whole = not message.get("more_body", False)
            return message

        return impatient
