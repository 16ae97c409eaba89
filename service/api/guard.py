"""Who may ask: API keys, or else this machine alone."""

import ipaddress
import logging
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from redis.exceptions import RedisError
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loramend.contracts.errors import RequestError
from service.api.caller import LOCAL, NOBODY, Caller
from service.api.gate import READ_METHODS, RESULTS_COOKIE, Gate, needed_scope
from service.api.problems import AnswerError, broker_down, problem_response
from service.api.web import ASSETS

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
# The probes, and the web page: a browser has no key before the page has asked for it.
OPEN_PATHS = frozenset({"/healthz", "/readyz", *ASSETS})
# What a pass opens.
_RESULTS = re.compile(r"/jobs/([^/]+)/(?:report|adapter)")
_THREADS = 16
_LOG = logging.getLogger("service.errors")


def opened_by_pass(method: str, path: str) -> str | None:
    """The ID of the job whose pass opens that; None where none does."""
    match = _RESULTS.fullmatch(path) if method in ("GET", "HEAD") else None
    return None if match is None else match[1]


def is_loopback(host: str) -> bool:
    """Whether a bind or peer address is this machine's own; a name other than localhost counts as not."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


class Guard:
    """ASGI middleware that refuses a request before any of it is worked on, and says whose it is.

    The Host header must name an allowed host. Where keys are required, every call but the probes and the web
    page needs `Authorization: Bearer <key>`, or for a job's results the pass that a browser took with one.
    Elsewhere the peer must be on this machine, and the Origin header of an unsafe method must name an allowed
    host too: a web page that rebinds its DNS name to 127.0.0.1, or posts a form across origins, gets nothing.
    A key that comes with such a request counts all the same; other tokens, such as those that Hub clients
    send along, do not.
    """

    def __init__(
        self, app: ASGIApp, *, gate: Gate, keys_required: bool, allowed_hosts: Sequence[str]
    ) -> None:
        self.app = app
        self._gate = gate
        self._keys_required = keys_required
        self._hosts = [host.lower() for host in allowed_hosts]
        # Apart from the endpoints' threads, so that no long upload keeps others from being let in.
        self._threads = anyio.CapacityLimiter(_THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        try:
            caller = state["caller"] = await self._caller(scope, Headers(scope=scope))
        except RequestError as error:
            problem = error.problem(state.get("request_id"))
            headers = error.headers if isinstance(error, AnswerError) else {}
            if problem.status == 401:
                headers = {"WWW-Authenticate": "Bearer"}
            await problem_response(problem, headers)(scope, receive, send)
            return
        except RedisError as down:
            await broker_down(down, state.get("request_id"))(scope, receive, send)
            return
        if caller.key_id is None:
            await self.app(scope, receive, send)
        else:
            await self._counted(caller, scope, receive, send)

    async def _counted(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, with the bytes it reads counted, whatever it makes of them."""
        size = 0

        async def counting() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return message

        try:
            await self.app(scope, counting, send)
        finally:
            if size:
                with anyio.CancelScope(shield=True):
                    await self._charge(caller, size)

    async def _charge(self, caller: Caller, size: int) -> None:
        try:
            await anyio.to_thread.run_sync(self._gate.received, caller, size, limiter=self._threads)
        except RedisError as error:
            _LOG.warning("%d bytes of key %s are not counted: %s", size, caller.key_id, error)

    async def _caller(self, scope: Scope, headers: Headers) -> Caller:
        self._check_host(headers)
        token = _bearer(headers)
        if self._keys_required:
            if scope["path"] in OPEN_PATHS:
                return NOBODY
            passed = None if token else _pass(scope)
            if passed is not None:
                return await anyio.to_thread.run_sync(self._gate.admit_pass, *passed, limiter=self._threads)
        else:
            self._check_local(scope, headers)
            if scope["path"] in OPEN_PATHS or not self._gate.knows_form(token):
                return LOCAL
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        return await anyio.to_thread.run_sync(
            self._gate.admit,
            token,
            needed_scope(scope["method"], scope["path"]),
            has_body,
            limiter=self._threads,
        )

    def _allowed(self, host: str) -> bool:
        return any(
            name == "*" or host == name or (name.startswith("*.") and host.endswith(name[1:]))
            for name in self._hosts
        )

    def _check_host(self, headers: Headers) -> None:
        name = _hostname("//" + headers.get("host", ""))
        if not self._allowed(name):
            raise RequestError(
                "host_not_allowed",
                "The Host header names a host that is not served here; see LORAMEND_ALLOWED_HOSTS.",
                where="/header/Host",
            )

    def _check_local(self, scope: Scope, headers: Headers) -> None:
        client = scope.get("client")
        if client is not None and not is_loopback(client[0]):
            raise RequestError(
                "unauthorized",
                "This service answers its own machine only; it asks others for API keys once it listens on "
                "more than loopback, or with LORAMEND_REQUIRE_KEYS=true.",
            )
        origin = headers.get("origin")
        if (
            origin is not None
            and scope["method"] not in READ_METHODS
            and not self._allowed(_hostname(origin))
        ):
            raise RequestError(
                "host_not_allowed",
                "The Origin header names another site; only this service's own pages may send that.",
                where="/header/Origin",
            )


def _bearer(headers: Headers) -> str:
    """The bearer token; empty where there is none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _pass(scope: Scope) -> tuple[str, str] | None:
    """The pass that came with a request for a job's results, and the job's ID."""
    job_id = opened_by_pass(scope["method"], scope["path"])
    given = None if job_id is None else HTTPConnection(scope).cookies.get(RESULTS_COOKIE)
    return None if job_id is None or given is None else (given, job_id)


def _hostname(url: str) -> str:
    """The host of a URL, in lower case, without port, brackets or trailing dot; empty where there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""
