"""Delivers webhooks: one POST each, bounded in time, to an address that was checked, and nowhere else."""

import logging
import ssl
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2

from loramend.cli.hub.addresses import CheckedBackend, NotPublicError
from loramend.contracts.errors import RequestError
from service.jobs.outbox import Outcome
from service.jobs.records import JobRecord
from service.jobs.targets import check_target
from worker.insist import insist
from worker.notice import body_of, headers_of
from worker.process import WorkerProcess
from worker.settings import WorkerSettings
from worker.tools import Tools

_LOG = logging.getLogger("worker.webhook")
# Of an answer nobody reads more than its status; so much of it lets the other side end in order.
_ANSWER_BYTES = 1 << 14
# What is not written by then is not known: the webhook is sent again. Within the limit of an attempt.
_SETTLE_SECONDS = 20.0


def deliver(job_id: str, tools: Tools, settings: WorkerSettings, process: WorkerProcess) -> None:
    """Make one attempt to deliver the job's webhook, unless there is none to make now.

    Raises RedisError where the store does not answer; the attempt is then made again later.
    """
    with process.busy_for(settings.webhook_limit):
        record = tools.outbox.take(job_id)
        if record is None or record.webhook is None:
            _LOG.info("job %s has no webhook to deliver now", job_id, extra={"job": job_id})
            return
        attempt = record.webhook.attempts
        outcome = _attempt(record, record.webhook.url, tools, settings)
        insist(lambda: tools.outbox.settle(job_id, attempt, outcome), _SETTLE_SECONDS)
    _LOG.info("job %s, webhook, attempt %d: %s", job_id, attempt, outcome.detail, extra={"job": job_id})


def _attempt(record: JobRecord, url: str, tools: Tools, settings: WorkerSettings) -> Outcome:
    secret = tools.sealer.unseal(record.webhook_secret or "")
    if secret is None:
        why = "The secret cannot be decrypted: service and worker need the same LORAMEND_SECRET_KEY."
        return Outcome(False, why, final=True)
    try:
        check_target(url, settings.webhook_private_hosts)
    except RequestError as error:
        return Outcome(False, f"{error.code}: {error.detail}", final=True)
    body = body_of(record)
    headers = headers_of(record.id, body, secret, int(time.time()))
    return post(url, body, headers, settings)


def post(url: str, body: bytes, headers: Mapping[str, str], settings: WorkerSettings) -> Outcome:
    """POST the body, which is JSON, once. Redirects are not followed, no proxy is asked, and of the answer
    nothing is kept but its status."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    trusted = frozenset(settings.webhook_private_hosts)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    own = {"User-Agent": f"loramend/{version('loramend')}", "Content-Type": "application/json"}
    try:
        with (
            httpcore2.ConnectionPool(
                ssl_context=httpx2.create_ssl_context(),
                network_backend=_BoundedBackend(trusted, settings.webhook_seconds),
            ) as pool,
            pool.stream(
                "POST",
                httpcore2.URL(scheme=parts.scheme, host=host, port=parts.port, target=target),
                headers=[*own.items(), *headers.items()],
                content=body,
            ) as response,
        ):
            _drain(response)
    except NotPublicError:
        return Outcome(False, f"webhook_not_allowed: {host} is not at a public address.", final=True)
    except httpcore2.TimeoutException:
        return Outcome(False, f"{host} did not answer within {settings.webhook_seconds:g} s.")
    except httpcore2.ConnectError as error:
        # httpcore hands on what it met as the error's argument, and drops the cause.
        secure = any(isinstance(met, ssl.SSLError) for met in error.args)
        why = "gave no TLS connection that can be trusted" if secure else "could not be reached"
        return Outcome(False, f"{host} {why}.")
    except (httpcore2.NetworkError, httpcore2.ProtocolError):
        return Outcome(False, f"{host} did not answer as a web server does.")
    # 410 is how a receiver says that it wants no more.
    status = response.status
    return Outcome(200 <= status < 300, f"{host} answered {status}.", final=status == 410)


def _drain(response: httpcore2.Response) -> None:
    """Read on to the answer's end, if that is near. It has come all the same where the rest breaks off."""
    left = _ANSWER_BYTES
    try:
        for chunk in response.iter_stream():
            left -= len(chunk)
            if left < 0:
                return
    except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError):
        return


class _BoundedBackend(CheckedBackend):
    """Whatever is done over its one connection, it takes no longer than `seconds` in all."""

    def __init__(self, trusted: frozenset[str], seconds: float) -> None:
        super().__init__(trusted)
        self._deadline = time.monotonic() + seconds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        left = _left(self._deadline, httpcore2.ConnectTimeout)
        stream = super().connect_tcp(host, port, left, local_address, socket_options)
        return _BoundedStream(stream, self._deadline)


class _BoundedStream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = _left(self._deadline, httpcore2.ConnectTimeout)
        return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float, error: type[httpcore2.TimeoutException]) -> float:
    """Seconds until then. Raises the error where there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise error("the time for it is up")
    return left
