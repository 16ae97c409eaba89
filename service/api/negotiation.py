"""What a client asks for in its headers: media types and entity tags (RFC 9110), preferences (RFC 7240)."""

import re
from collections.abc import Sequence

from loramend.contracts.errors import RequestError

_PARAMETER = re.compile(r";\s*([\w-]+)\s*=\s*(\"(?:[^\"\\]|\\.)*\"|[^\s;,]*)")


def _ranges(accept: str) -> list[tuple[str, float]]:
    """(media range, quality) of each element of an Accept header."""
    found = []
    for element in accept.split(","):
        media = element.split(";", 1)[0].strip().lower()
        if not media:
            continue
        quality = 1.0
        for name, value in _PARAMETER.findall(element):
            if name.lower() == "q":
                try:
                    quality = min(max(float(value), 0.0), 1.0)
                except ValueError:
                    quality = 0.0
        found.append((media, quality))
    return found


def choose(accept: str | None, offered: Sequence[str]) -> str:
    """The offered media type that the Accept header likes best; the first one where it says nothing.

    The most specific range that fits a type sets its quality, whatever the order. Raises RequestError
    `not_acceptable` where every offered type has quality 0.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = _ranges(accept)

    def quality(media: str) -> float:
        for fitting in (media, media.split("/", 1)[0] + "/*", "*/*"):
            matches = [q for name, q in ranges if name == fitting]
            if matches:
                return max(matches)
        return 0.0

    best = max(offered, key=quality)
    if quality(best) <= 0:
        raise RequestError(
            "not_acceptable",
            f"The Accept header takes none of what is served here: {', '.join(offered)}.",
            where="/header/Accept",
        )
    return best


def preferred_wait(prefer: Sequence[str], most: int) -> int | None:
    """Seconds of `Prefer: wait=n`, at most `most`; None where it was not asked for or cannot be read.

    A preference that is not understood is ignored, as RFC 7240 asks.
    """
    for header in prefer:
        for element in header.split(","):
            name, _, value = element.split(";", 1)[0].partition("=")
            value = value.strip().strip('"')
            if name.strip().lower() == "wait" and re.fullmatch(r"[0-9]{1,9}", value):
                return min(int(value), most)
    return None


def matches_any(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this entity tag, by weak comparison."""
    if header is None:
        return False
    if header.strip() == "*":
        return True
    tags = re.findall(r'(?:W/)?"[^"]*"', header)
    return etag.removeprefix("W/") in {tag.removeprefix("W/") for tag in tags}
