"""Interrupts that arrive at a bad moment."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_HELD = frozenset({signal.SIGINT, signal.SIGTERM})


@contextmanager
def interrupts_held() -> Iterator[None]:
    """SIGINT and SIGTERM are delivered when the block ends: torch's import swallows a KeyboardInterrupt that
    is raised inside it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
