"""What the processes of one worker share: its name, which job its child is at, and when that must be handed
back."""

import multiprocessing
import os
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from service.jobs.lease import Lease
from service.jobs.records import Queue


@dataclass(frozen=True)
class Held:
    """The lease that a child works under: its process id, and when it began on the monotonic clock, which is
    the same in all processes of a machine."""

    lease: Lease
    pid: int
    begun: float


class WorkerProcess:
    """Made in the parent before it forks: both sides see what the other sets.

    name    unique to one start of the parent: a lease under it that no child of it works on is a dead one's
    parent  the parent's process id
    """

    def __init__(self, queues: Sequence[Queue]) -> None:
        self.queues = tuple(queues)
        self.parent = os.getpid()
        self.name = f"{'+'.join(queues)}@{socket.gethostname()}-{self.parent}-{uuid.uuid4().hex[:8]}"
        # Shared memory without locks, which a killed process would hold for ever. Numbers are written at
        # once; the fence is written last and taken back first, so that what is read between two equal ones
        # belongs together.
        self._hand_back_at = multiprocessing.RawValue("d", 0.0)
        self._fence = multiprocessing.RawValue("q", 0)
        self._pid = multiprocessing.RawValue("q", 0)
        self._begun = multiprocessing.RawValue("d", 0.0)
        self._taken = multiprocessing.RawValue("q", 0)
        self._busy_until = multiprocessing.RawValue("d", 0.0)
        self._job_id = multiprocessing.RawArray("c", 64)

    def stop_in(self, seconds: float) -> None:
        """Have running jobs handed back after that time. Only the first call counts."""
        if not self._hand_back_at.value:
            self._hand_back_at.value = time.monotonic() + seconds

    @property
    def stopping(self) -> bool:
        """Whether the worker was asked to stop."""
        return bool(self._hand_back_at.value)

    def take(self) -> None:
        """In the child: a message has come."""
        self._taken.value += 1

    @property
    def taken(self) -> int:
        """How many messages have come."""
        count: int = self._taken.value
        return count

    @contextmanager
    def busy_for(self, seconds: float) -> Iterator[None]:
        """In the child: a message has come that takes at most that long, and no lease."""
        self.take()
        self._busy_until.value = time.monotonic() + seconds
        try:
            yield
        finally:
            self._busy_until.value = 0.0

    @property
    def busy(self) -> bool:
        """Whether the child is at something; of one that died in `busy_for` that is so for its time."""
        until: float = self._busy_until.value
        return self.held is not None or time.monotonic() < until

    @property
    def must_hand_back(self) -> bool:
        """Whether that time has come."""
        at: float = self._hand_back_at.value
        return 0 < at <= time.monotonic()

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[None]:
        """In the child: it works under that lease. A child that dies in the block leaves word of it."""
        self._fence.value = 0
        self._pid.value, self._begun.value = os.getpid(), time.monotonic()
        self._job_id.value = lease.job_id.encode()
        self._fence.value = lease.fence
        try:
            yield
        finally:
            self._fence.value = 0

    @property
    def held(self) -> Held | None:
        """What the child is at, or was as it died."""
        fence: int = self._fence.value
        lease = Lease(self._job_id.value.decode(), fence, self.name)
        found = Held(lease, self._pid.value, self._begun.value)
        return found if fence and self._fence.value == fence else None

    def forget(self, held: Held) -> None:
        """In the parent: the child that held this is dead, and its job dealt with."""
        if self.held == held:
            self._fence.value = 0
