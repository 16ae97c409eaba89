"""Writing to the job store what must not be lost because it is away for a moment."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import RedisError

_LOG = logging.getLogger("worker.insist")
# A restart of the broker, with the reading of its append-only file. What is not written by then is done anew.
INSIST_SECONDS = 60.0
_PAUSE = 0.5
T = TypeVar("T")


def insist(write: Callable[[], T], seconds: float = INSIST_SECONDS) -> T:
    """What `write` returns, tried again while the store does not answer or takes nothing. Raises RedisError
    after that time, and whatever else `write` raises."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return write()
        except RedisError as error:
            if time.monotonic() > deadline:
                raise
            _LOG.warning("the job store takes nothing just now: %s", error)
            time.sleep(_PAUSE)
