"""Where a server may be sent by others: public addresses, and the hosts that the settings name.

Checked as the connection is made, on the address that it is made to, so that a name which resolves to another
address the next time gains nothing.
"""

import logging
import socket
import time
from collections.abc import Iterable

import httpcore2

from loramend.addresses import is_public

_LOG = logging.getLogger(__name__)


class NotPublicError(httpcore2.ConnectError):
    """The host is at an address where the server has no business."""


class CheckedBackend(httpcore2.SyncBackend):
    """Connects to public addresses, and to any address of `trusted` hosts."""

    def __init__(self, trusted: frozenset[str]) -> None:
        self._trusted = trusted

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """`timeout` is for all addresses of the host together. Raises NotPublicError for other hosts of which
        any address is not public."""
        if host.lower().rstrip(".") in self._trusted:
            return super().connect_tcp(host, port, timeout, local_address, socket_options)
        addresses = _resolved(host, port)
        private = [address for address in addresses if not is_public(address)]
        if private:
            _LOG.warning("%s is at %s, which is not public: not connected to", host, private[0])
            raise NotPublicError(f"{host} is not at a public address")
        failure: Exception = httpcore2.ConnectError(f"{host} has no address")
        begun = time.monotonic()
        for address in addresses:
            left = None if timeout is None else timeout - (time.monotonic() - begun)
            if left is not None and left <= 0:
                break
            try:
                return super().connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


def _resolved(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the second for names too long to look up
        raise httpcore2.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
