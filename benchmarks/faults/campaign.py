"""The jobs of one rig: sent, followed to their ends, and held against what was expected of them."""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks.faults.client import Client, Sent, Work
from benchmarks.faults.rig import Rig
from loramend.contracts.job import TERMINAL
from service.jobs.queue import Dispatcher

ENDED = frozenset({*TERMINAL, "lost"})
# Far longer than any job takes with all that befalls it.
END_SECONDS = 300.0
_SENDERS = 8
_POLL = 0.1


@dataclass
class Row:
    """What became of the jobs under one fault.

    done    how often the fault was done
    worst   seconds, from sending a job to its end or from asking to cancel to that; None where nothing ended
    losses  what is wrong, in words
    """

    fault: str
    done: int = 0
    jobs: list[Sent] = field(default_factory=list)
    worst: float | None = None
    losses: list[str] = field(default_factory=list)

    @property
    def succeeded(self) -> int:
        return sum(sent.outcome == "succeeded" for sent in self.jobs)

    @property
    def as_expected(self) -> int:
        """How many ended otherwise, and were to."""
        return sum(sent.outcome != "succeeded" and sent.outcome in sent.expect for sent in self.jobs)


class Campaign:
    """One rig and all jobs that were sent to it.

    undisturbed  digest of the weights by the work's name
    """

    def __init__(self, rig: Rig, broker_url: str, chance: random.Random) -> None:
        self.rig = rig
        self.chance = chance
        self.client = Client(rig.url, rig.outside.webhook)
        self.dispatcher = Dispatcher(broker_url)
        self.undisturbed: dict[str, str] = {}
        self.rows: list[Row] = []
        self._pool = ThreadPoolExecutor(_SENDERS)

    def close(self) -> None:
        self._pool.shutdown()
        self.client.close()
        self.dispatcher.close()

    def row(self, fault: str) -> Row:
        """A new row of the table."""
        row = Row(fault)
        self.rows.append(row)
        return row

    def send(
        self, row: Row, works: Sequence[Work], *, expect: Iterable[str] = ("succeeded",)
    ) -> "list[Future[Sent]]":
        """Send the jobs, several at a time, in threads of their own."""
        return [self._pool.submit(self.client.submit, work, expect=frozenset(expect)) for work in works]

    def taken(self, row: Row, futures: "Sequence[Future[Sent]]") -> list[Sent]:
        """The jobs once the service has all of them, in the row; one that it does not take is a loss."""
        self.rig.wait(lambda: all(future.done() for future in futures), END_SECONDS, "all jobs to be taken")
        sents = []
        for future in futures:
            error = future.exception()
            if error is None:
                sents.append(future.result())
            else:
                row.losses.append(str(error))
        row.jobs += sents
        return sents

    def submit(
        self, row: Row, works: Sequence[Work], *, expect: Iterable[str] = ("succeeded",)
    ) -> list[Sent]:
        """Send the jobs and wait until the service has them."""
        return self.taken(row, self.send(row, works, expect=expect))

    def open_jobs(self, row: Row) -> list[Sent]:
        """Those of the row that have not ended, asked for anew."""
        waiting = [sent for sent in row.jobs if not sent.ended]
        for sent in waiting:
            said = self.client.get(sent.id)
            if said is not None:
                sent.seen = said
                if said["status"] in ENDED:
                    sent.ended = time.monotonic()
        return [sent for sent in waiting if not sent.ended]

    def finish(
        self, row: Row, meanwhile: Callable[[list[Sent]], None] | None = None, *, timed: bool = True
    ) -> None:
        """Follow the row's jobs to their ends, doing something between two looks, and judge them."""
        deadline = time.monotonic() + END_SECONDS
        while waiting := self.open_jobs(row):
            if time.monotonic() > deadline:
                break
            if meanwhile is not None:
                meanwhile(waiting)
            self.rig.pause(_POLL)
        for sent in row.jobs:
            self._judge(row, sent)
        took = [sent.ended - sent.begun for sent in row.jobs if sent.ended]
        if timed and took:
            row.worst = max(took)

    def _judge(self, row: Row, sent: Sent) -> None:
        if not sent.ended:
            row.losses.append(f"{sent.id} has not ended: {sent.outcome}")
        elif sent.outcome not in sent.expect:
            row.losses.append(f"{sent.id} ended as {sent.outcome}, not {' or '.join(sorted(sent.expect))}")
