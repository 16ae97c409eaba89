"""Keeps clients that are many, or slow, from using the service up."""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loramend.contracts.errors import RequestError
from service.api.problems import problem_response

# A probe that asks nothing of anybody must not fail because others ask much.
_ALWAYS = "/healthz"


class Busy:
    """ASGI middleware.

    most          requests worked on at a time, event streams among them; one more gets 503 `overloaded`
    body_seconds  how long a body may be waited for at a stretch, and by how much it may fall behind the
                  least rate; then its endpoint meets RequestError `request_timeout`
    least_rate    bytes a second that a body must bring on average; 0: any number, in pieces that are
                  never further apart than body_seconds
    """

    def __init__(self, app: ASGIApp, *, most: int, body_seconds: float, least_rate: float) -> None:
        self.app = app
        self._most = most
        self._body_seconds = body_seconds
        self._least_rate = least_rate
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
        """What the client takes is taken off its time, what it brings is put back on: a byte a minute keeps
        nobody waiting for ever. Time that passes while nobody waits for it is not the client's."""
        whole = False
        left = self._body_seconds

        async def impatient() -> Message:
            nonlocal whole, left
            if whole:  # what comes now is the client's leaving
                return await receive()
            begun = time.monotonic()
            try:
                async with asyncio.timeout(left):
                    message = await receive()
            except TimeoutError:
                raise RequestError("request_timeout", self._too_slow()) from None
            left -= time.monotonic() - begun
            if self._least_rate:
                left = min(self._body_seconds, left + len(message.get("body", b"")) / self._least_rate)
            else:
                left = self._body_seconds
            whole = not message.get("more_body", False)
            return message

        return impatient

    def _too_slow(self) -> str:
        least = f" and at least {self._least_rate:g} bytes a second" if self._least_rate else ""
        return f"The body came too slowly: send it with no pause over {self._body_seconds:g} s{least}."
