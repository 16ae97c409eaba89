"""Ways in which the hub can be made to fail, as ASGI middleware."""

import asyncio
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Fault:
    """What goes wrong with requests whose method and path fit.

    status     answered instead; with `after`, the request is carried out first and its answer lost
    hang       seconds without an answer
    cut        bytes of the body after which the answer breaks off
    times      how many requests it strikes; -1 is all of them
    skip       how many fitting requests pass before it strikes
    """

    path: str = ""
    method: str = ""
    status: int = 0
    hang: float = 0.0
    cut: int = -1
    after: bool = False
    times: int = -1
    skip: int = 0
    message: str = "injected fault"

    def strikes(self, method: str, path: str) -> bool:
        if self.times == 0 or self.path not in path or self.method not in ("", method):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1 if self.times > 0 else 0
        return True


class FaultyApp:
    """Passes requests on to `app` unless a fault strikes."""

    def __init__(self, app: ASGIApp, faults: list[Fault]) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        fault = next((fault for fault in self._faults if fault.strikes(method, path)), None)
        if fault is None:
            await self._app(scope, receive, send)
            return
        await asyncio.sleep(fault.hang)
        if fault.cut >= 0:
            await self._app(scope, receive, _cutting(send, fault.cut))
            return
        if fault.after:
            await self._app(scope, receive, _swallow)
        if fault.status:
            answer = JSONResponse({"error": fault.message}, fault.status)
            await answer(scope, receive, send)
        elif not fault.after:
            await self._app(scope, receive, send)


async def _swallow(message: Message) -> None:
    pass


def _cutting(send: Send, limit: int) -> Send:
    left = limit

    async def cut(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.body":
            body = message.get("body", b"")[:left]
            left -= len(body)
            await send({**message, "body": body, "more_body": True})
            if left <= 0:
                raise ConnectionAbortedError("cut off by a fault")
        else:
            await send(message)

    return cut
