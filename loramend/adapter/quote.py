"""Untrusted names in error messages."""


def quote(text: str, limit: int = 160) -> str:
    """`text` as it may be printed: no control characters, at most `limit` characters."""
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
