"""Our hub over HTTP, in a thread for the tests' time."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.hub import pull, push
from tests.hub.faults import FaultyApp
from tests.hub.local import HubError, LocalHub, Seen


@contextlib.contextmanager
def serving(hub: LocalHub) -> Iterator[LocalHub]:
    """Serve the hub on a free loopback port, told by its `endpoint`."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            _app(hub), log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started, thread.is_alive, "the test hub")
            hub.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield hub
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def wait_until(ready: Callable[[], bool], alive: Callable[[], bool], name: str) -> None:
    """Wait for a server to answer. Raises AssertionError where it ends or takes over 30 s."""
    deadline = time.monotonic() + 30
    while not ready():
        assert alive(), f"{name} ended while starting"
        assert time.monotonic() < deadline, f"{name} did not start"
        time.sleep(0.02)


def _app(hub: LocalHub) -> ASGIApp:
    api = FastAPI(openapi_url=None)
    api.add_exception_handler(HubError, _answer_error)
    api.state.hub = hub
    api.include_router(push.router)
    api.include_router(pull.router)
    return _Recorder(FaultyApp(api, hub.faults), hub)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HubError)
    headers = {"X-Error-Message": str(error)}
    if error.code:
        headers["X-Error-Code"] = error.code
    body: dict[str, Any] = {"error": str(error)}
    return JSONResponse(body, error.status, headers)


class _Recorder:
    """Notes every request and how it was answered."""

    def __init__(self, app: ASGIApp, hub: LocalHub) -> None:
        self._app = app
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        token = self._hub.accounts.tokens.get(headers.get("authorization", "").removeprefix("Bearer "))

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                user = token.user if token else ""
                self._hub.seen.append(Seen(scope["method"], scope["path"], message["status"], user))
            await send(message)

        await self._app(scope, receive, note)
