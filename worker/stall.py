"""Noticing that the worker leaves its messages lying."""

import time

from service.jobs.queue import Messages
from worker.process import WorkerProcess

STALL_SECONDS = 10.0


class Stall:
    """Celery's consumer may stop listening after its broker went away and came back several times, with no
    error and for good (seen with kombu 5.7). What tells is that messages wait, that nothing keeps the worker
    from taking them, and that it takes none."""

    def __init__(self, messages: Messages, process: WorkerProcess, seconds: float = STALL_SECONDS) -> None:
        self._messages = messages
        self._process = process
        self._seconds = seconds
        self._since: float | None = None
        self._taken = -1

    def look(self) -> bool:
        """Whether that has been so for as long as it takes to be sure. Raises RedisError, which is no stall:
        there is nothing to take then."""
        process = self._process
        taken, busy = process.taken, process.busy or process.stopping
        try:
            idle = not busy and taken == self._taken and self._messages.waiting(process.queues) > 0
        except BaseException:
            self._since = None
            raise
        self._taken = taken
        if not idle:
            self._since = None
            return False
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since >= self._seconds
