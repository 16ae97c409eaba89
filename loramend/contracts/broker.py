"""The broker's URL, in the forms that Celery takes."""

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


def socket_options(url: str) -> dict[str, Any] | None:
    """redis-py's options for Celery's redis+socket:// form, which it does not know; None where the URL is of
    another form."""
    parts = urlsplit(url)
    if parts.scheme != "redis+socket":
        return None
    database = parse_qs(parts.query).get("virtual_host", ["0"])[0].lstrip("/")
    return {
        "unix_socket_path": unquote(parts.path),
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "db": int(database or 0),
    }
