"""Byte ranges (RFC 9110, section 14)."""

import re

from loramend.contracts.errors import RequestError

_ONE_RANGE = re.compile(
    r"bytes\s*=\s*(?:([0-9]{1,19})\s*-\s*([0-9]{0,19})|-\s*([0-9]{1,19}))\s*", re.IGNORECASE
)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The half-open (start, end) that a Range header asks of a file of `size` bytes; None for all of it.

    A header that is malformed, in another unit, or lists several ranges is ignored, as the RFC allows: the
    whole file is then the answer. Raises RequestError `range_not_satisfiable` where no byte is in the range.
    """
    match = _ONE_RANGE.fullmatch(header.strip()) if header is not None else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(size - int(suffix), 0), size
    else:
        start, end = int(first), size if last == "" else min(int(last) + 1, size)
        if last != "" and int(last) < start:
            return None
    if start >= end:
        raise RequestError("range_not_satisfiable", f"The file has {size} bytes.", where="/header/Range")
    return start, end


def range_applies(if_range: str | None, etag: str) -> bool:
    """Whether a Range header counts, given If-Range: its tag must match strongly; a date never does."""
    return if_range is None or (not etag.startswith("W/") and if_range.strip() == etag)
