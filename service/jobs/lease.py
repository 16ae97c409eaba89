"""The right to work on a job."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lease:
    """Held by one worker at a time. `fence` grows with every lease of the job, so a write under an old one
    is told apart and refused."""

    job_id: str
    fence: int
    worker: str


class LeaseLost(Exception):  # noqa: N818 - says what happened, and is no failure of the job
    """The lease ran out and was taken away, or the job is gone: stop, and write nothing."""
