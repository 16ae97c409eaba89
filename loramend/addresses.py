"""Which network addresses are the public internet's."""

import ipaddress
import socket

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


def written_addresses(host: str) -> list[str]:
    """The addresses that a host is written as, in any spelling that connecting would take; none where it is
    a name. Nothing is looked up."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
