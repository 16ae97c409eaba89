"""Telling a full disk from other errors."""

import errno
import os

from loramend.contracts.errors import LoramendError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Libraries that are not written in Python tell the system's error in their own words.
_SAID = tuple(word for code in _FULL for word in (f"os error {code})", os.strerror(code)))


def is_disk_full(error: BaseException) -> bool:
    """Whether this error, or one that it comes from, says that a disk is full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, LoramendError):
            return seen.code == "disk_full"
        if (isinstance(seen, OSError) and seen.errno in _FULL) or any(word in str(seen) for word in _SAID):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def disk_full(whose: str) -> LoramendError:
    """The error to tell; `whose` disk it is begins the sentence, as in "The storage's"."""
    return LoramendError("disk_full", f"{whose} disk is full. Try again later.")
