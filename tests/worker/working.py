"""A job in this process's hands, for tests of what a phase is made of."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.service.jobs.jobs import new_record
from worker.job import Work, work_folder
from worker.keeper import keeping
from worker.process import WorkerProcess
from worker.settings import WorkerSettings
from worker.tools import open_tools


@contextmanager
def working(settings: WorkerSettings, **fields: Any) -> Iterator[Work]:
    """A new job, taken up."""
    tools = open_tools(settings)
    record = tools.store.create(new_record(**fields))
    with retaken(settings, record.id) as work:
        yield work


@contextmanager
def retaken(settings: WorkerSettings, job_id: str) -> Iterator[Work]:
    """A job taken up by a worker of its own."""
    tools, process = open_tools(settings), WorkerProcess(["train"])
    lease = tools.store.acquire(job_id, process.name, 30)
    assert lease is not None
    with (
        keeping(tools.store, lease, process, ttl=30, period=0) as keeper,
        work_folder(settings.work_dir, lease) as folder,
    ):
        yield Work(tools.store.held(lease), lease, folder, keeper, tools, settings)
