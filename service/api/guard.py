"""Who may ask: API keys, or else this machine alone."""

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from loramend.contracts.errors import RequestError
from service.api.problems import problem_response

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


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
    """ASGI middleware that refuses a request before any of it is worked on.

    The Host header must name an allowed host. With keys, every call but the probes needs
    `Authorization: Bearer <key>`. Without keys, the peer must be on this machine, and the Origin header of an
    unsafe method must name an allowed host too: a web page that rebinds its DNS name to 127.0.0.1, or posts a
    form across origins, gets nothing.
    """

    def __init__(self, app: ASGIApp, *, api_keys: Iterable[str], allowed_hosts: Sequence[str]) -> None:
        self.app = app
        self._keys = [_digest(key) for key in api_keys]
        self._hosts = [host.lower() for host in allowed_hosts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            if self._keys:
                self._check_key(scope, headers)
            else:
                self._check_local(scope, headers)
        except RequestError as error:
            problem = error.problem(scope.get("state", {}).get("request_id"))
            challenge = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else None
            await problem_response(problem, challenge)(scope, receive, send)
            return
        await self.app(scope, receive, send)

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

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        if scope["path"] in OPEN_PATHS:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        digest = _digest(given.strip())
        # Every key is compared, so that the time taken does not tell which one nearly fits.
        known = sum(hmac.compare_digest(digest, key) for key in self._keys)
        if scheme.lower() != "bearer" or not known:
            raise RequestError(
                "unauthorized",
                "Send an API key as `Authorization: Bearer <key>`: loramend pull takes it from "
                "LORAMEND_API_KEY, Hub clients from HF_TOKEN.",
            )

    def _check_local(self, scope: Scope, headers: Headers) -> None:
        client = scope.get("client")
        if client is not None and not is_loopback(client[0]):
            raise RequestError(
                "unauthorized",
                "Without API keys this service answers its own machine only; set LORAMEND_API_KEYS.",
            )
        origin = headers.get("origin")
        if (
            origin is not None
            and scope["method"] not in _SAFE_METHODS
            and not self._allowed(_hostname(origin))
        ):
            raise RequestError(
                "host_not_allowed",
                "The Origin header names another site; only this service's own pages may send that.",
                where="/header/Origin",
            )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _hostname(url: str) -> str:
    """The host of a URL, in lower case, without port, brackets or trailing dot; empty where there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""
