"""Where webhooks may go: https to public addresses, and whatever the settings name."""

from collections.abc import Collection
from urllib.parse import urlsplit

from loramend.addresses import is_public, written_addresses
from loramend.contracts.errors import RequestError


def check_target(url: str, private_hosts: Collection[str], *, where: str | None = None) -> None:
    """Refuse what can be told without looking a name up; where names lead is checked as they are connected
    to. Raises RequestError `webhook_not_allowed`."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if host in private_hosts:
        return
    if parts.scheme != "https":
        why = "goes over plain http"
    elif host == "localhost" or host.endswith(".localhost"):
        why = "is the server's own machine"
    elif not all(map(is_public, written_addresses(host))):
        why = "is not at a public address"
    else:
        return
    raise RequestError(
        "webhook_not_allowed",
        f"{host} {why}: give an https URL on the internet, or have the host named in "
        "LORAMEND_WEBHOOK_PRIVATE_HOSTS.",
        where=where,
    )
