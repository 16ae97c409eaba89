"""Processes that end with the process that started them."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded at import, so that a child between fork and exec only calls it.
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel send this process SIGKILL when its parent ends, however the parent ends.

    parent  the pid of the process to end with, noted before the fork: where that process is already gone,
            this one ends here. None takes whoever is the parent now.

    The kernel watches the *thread* that forked, so fork from one that lasts, such as the main one. The
    setting survives exec and is not inherited by further children: each must ask for itself. Elsewhere than
    on Linux this does nothing.

    Raises OSError where the kernel refuses.
    """
    if _prctl is None:
        return
    if _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
