"""Headers that every answer carries unless its endpoint says otherwise."""

from starlette.datastructures import MutableHeaders

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Nothing that is served for programs has anything to load, to run or to send, should a browser show it.
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"


def secure(headers: MutableHeaders) -> None:
    """Add what is missing. A page that needs more than nothing sets a Content-Security-Policy of its own."""
    for name, value in _ALWAYS.items():
        headers.setdefault(name, value)
    headers.setdefault("Content-Security-Policy", _POLICY)
