"""What the processes of one worker share: its name, and when running jobs must be handed back."""

import multiprocessing
import os
import socket
import time
import uuid
from collections.abc import Sequence

from service.jobs.records import Queue


class WorkerProcess:
    """Made in the parent before it forks; the child sees what the parent sets.

    name    unique to one start of the parent: a lease under it that no child of it works on is a dead one's
    parent  the parent's process id
    """

    def __init__(self, queues: Sequence[Queue]) -> None:
        self.queues = tuple(queues)
        self.parent = os.getpid()
        self.name = f"{'+'.join(queues)}@{socket.gethostname()}-{self.parent}-{uuid.uuid4().hex[:8]}"
        # Shared memory without a lock: a signal handler sets it, and a double is written at once.
        self._hand_back_at = multiprocessing.RawValue("d", 0.0)

    def stop_in(self, seconds: float) -> None:
        """Have running jobs handed back after that time. Only the first call counts."""
        if not self._hand_back_at.value:
            self._hand_back_at.value = time.monotonic() + seconds

    @property
    def must_hand_back(self) -> bool:
        """Whether that time has come. The monotonic clock is the same in all processes of a machine."""
        at: float = self._hand_back_at.value
        return 0 < at <= time.monotonic()
