"""Where a Hub may send us on to: public addresses, and the hosts that the settings name.

Checked as the connection is made, on the address that it is made to, so that a name which resolves to another
address the next time gains nothing.
"""

import ipaddress
import logging
import socket
from collections.abc import Iterable

import httpcore2

_LOG = logging.getLogger(__name__)
_UNICAST = ipaddress.IPv6Network("2000::/3")
# Oracle's metadata lies there; not every Python knows the whole block as special.
_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether an IP address is one of the public internet's, as is any IPv4 address that it stands for."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        special = address.is_multicast or address.is_reserved or address in _PROTOCOLS
        return address.is_global and not special
    if address.ipv4_mapped is not None:
        return is_public(str(address.ipv4_mapped))
    if address in _NAT64:
        return is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
    within = [address.sixtofour, *(address.teredo or ())]
    return (
        address in _UNICAST
        and address.is_global
        and all(is_public(str(inner)) for inner in within if inner is not None)
    )


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
        """Raises httpcore2.ConnectError for other hosts of which any address is not public."""
        if host.lower().rstrip(".") in self._trusted:
            return super().connect_tcp(host, port, timeout, local_address, socket_options)
        addresses = _resolved(host, port)
        private = [address for address in addresses if not is_public(address)]
        if private:
            _LOG.warning("the Hub sent us on to %s at %s, which is not public: refused", host, private[0])
            raise httpcore2.ConnectError(f"{host} is not at a public address")
        failure = httpcore2.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore2.ConnectError as error:
                failure = error
        raise failure


def _resolved(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore2.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
