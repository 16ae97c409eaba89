"""What goes when jobs and files are kept long enough, or take too much room: the oldest first, never a job
that waits or runs.

A job is removed from the store before its files are, and they are marked as being deleted in the same step:
what is killed in between leaves files that `BlobTable.sweep` finds.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from heapq import merge

from redis import Redis

from loramend.contracts.errors import RequestError
from service.jobs.records import JobRecord
from service.jobs.state import PREFIX, server_ms
from service.jobs.storage import Storage
from service.jobs.store import JobStore

_LOG = logging.getLogger("service.retention")
_LOCK = f"{PREFIX}expiring"
# A round whose process was killed keeps others from theirs for this long.
_LOCK_MS = 600_000


@dataclass(frozen=True)
class Retention:
    """How long ended jobs stay, and how many bytes all stored files may take; 0 sets no limit.

    upload_seconds  how long uploads are held, which tells when they came
    """

    seconds: float
    max_bytes: int
    upload_seconds: float


class Expiry:
    """Removes what is over the limits. Of the processes that try, one at a time does."""

    def __init__(self, redis: "Redis", store: JobStore, storage: Storage, retention: Retention) -> None:
        self._redis = redis
        self._store = store
        self._storage = storage
        self._retention = retention

    def run(self, seconds: float) -> bool:
        """One round of about that time; False where it was too short for all there is to do."""
        if not self._redis.set(_LOCK, "1", nx=True, px=_LOCK_MS):
            return True
        try:
            deadline = time.monotonic() + seconds
            return self._by_age(deadline) and self._by_size(deadline)
        finally:
            self._redis.delete(_LOCK)

    def _by_age(self, deadline: float) -> bool:
        if not self._retention.seconds:
            return True
        before = server_ms(self._redis) - int(self._retention.seconds * 1000)
        for record in self._store.oldest(made_before=before):
            if _ended_at(record) > before:
                continue
            if time.monotonic() > deadline:
                return False
            self._remove(record, "is old enough")
        return True

    def _by_size(self, deadline: float) -> bool:
        if not self._retention.max_bytes:
            return True
        sizes = self._storage.sizes()
        over = sum(sizes.values()) - self._retention.max_bytes
        if over <= 0:
            return True
        held = int(self._retention.upload_seconds * 1000)
        for at, found in merge(self._jobs(), self._uploads(held), key=lambda each: each[0]):
            if time.monotonic() > deadline:
                return False
            if isinstance(found, str):
                freed = self._drop_uploads([found], at + held)
            else:
                freed = self._remove(found, "makes room")
                # Its own upload, where the adapter's file came bare, is the same file.
                freed += self._drop_uploads(found.blobs().keys() - set(freed), at + held)
            over -= sum(sizes.get(digest, 0) for digest in freed)
            if over <= 0:
                return True
        _LOG.warning("the storage holds %d bytes more than it should, and nothing that may go", over)
        return True

    def _jobs(self) -> Iterator[tuple[int, JobRecord | str]]:
        """Jobs with the ms at which they ended, in the order in which they were made."""
        return ((_ended_at(record), record) for record in self._store.oldest())

    def _uploads(self, held: int) -> Iterator[tuple[int, JobRecord | str]]:
        """Digests of what may be an upload, with the ms at which it came."""
        return ((till - held, digest) for digest, till in self._store.blobs.temporary())

    def _remove(self, record: JobRecord, why: str) -> list[str]:
        freed: list[str] = []
        with suppress(RequestError):  # a client was faster
            freed = self._store.delete(record.id)
            self._store.blobs.delete(freed, self._storage)
            _LOG.info("job %s %s and is removed", record.id, why, extra={"job": record.id})
        return freed

    def _drop_uploads(self, digests: Iterable[str], till: int) -> list[str]:
        freed = [digest for digest in digests if self._store.blobs.free_upload(digest, till)]
        self._store.blobs.delete(freed, self._storage)
        return freed


def _ended_at(record: JobRecord) -> int:
    return int((record.finished_at or record.created_at).timestamp() * 1000)
