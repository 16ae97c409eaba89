"""The Celery application of a worker process."""

import re
from collections.abc import Sequence
from typing import Any

from celery import Celery, Task, signals

from loramend.procs import die_with_parent
from service.jobs.queue import DELIVER_TASK, TASK, celery_options
from service.jobs.records import Queue
from worker.process import WorkerProcess
from worker.reaper import Reaper
from worker.run import run
from worker.settings import WorkerSettings
from worker.tools import Tools, open_tools
from worker.warden import Warden


def create_app(settings: WorkerSettings, queues: Sequence[Queue]) -> Celery:
    """The application with its two tasks, for a worker on those queues that runs one job at a time."""
    app = Celery("loramend")
    app.conf.update(celery_options(settings.broker_url))
    app.conf.update(
        # A message is gone only when its job has ended or been handed on.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_pool="prefork",
        worker_lost_wait=2.0,
        # On a busy machine a fork may take its time; a child that is not up by then is killed.
        worker_proc_alive_timeout=60.0,
        # The warden ends what takes too long; this is for the case that it cannot.
        task_time_limit=settings.hard_seconds,
        worker_soft_shutdown_timeout=settings.shutdown_seconds,
        # The lease tells whether a job may go on, not the connection.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Nobody needs to command workers over the broker.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    process = WorkerProcess(queues)
    child = _Child(settings, process)

    @app.task(name=TASK, bind=True, ignore_result=True)
    def run_job(self: "Task[Any, Any]", job_id: str) -> None:
        _check_id(job_id)
        info: dict[str, Any] = dict(self.request.delivery_info or {})
        run(job_id, info["routing_key"], child.tools, settings, process)

    @app.task(name=DELIVER_TASK, ignore_result=True, time_limit=settings.webhook_limit)
    def deliver_webhook(job_id: str) -> None:
        _check_id(job_id)
        # Imported here: only a child that does the work needs a client for it.
        from worker.courier import deliver

        deliver(job_id, child.tools, settings, process)

    _connect(settings, process, child)
    return app


def _check_id(job_id: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{32}", job_id):
        raise ValueError("a message holds a job's id and nothing else")


class _Child:
    """What the forked process opens for itself."""

    def __init__(self, settings: WorkerSettings, process: WorkerProcess) -> None:
        self._settings = settings
        self._process = process
        self._tools: Tools | None = None

    def open(self, **_: Any) -> None:
        """Called in the child, in its main thread."""
        die_with_parent(self._process.parent)
        self._tools = open_tools(self._settings)

    @property
    def tools(self) -> Tools:
        assert self._tools is not None, "opened when the child starts"
        return self._tools


def _connect(settings: WorkerSettings, process: WorkerProcess, child: _Child) -> None:
    reaper = Reaper(open_tools(settings), settings, process)
    warden = Warden(open_tools(settings), settings, process)

    def started(**_: Any) -> None:
        reaper.start()
        warden.start()

    def stopping(**_: Any) -> None:
        process.stop_in(settings.shutdown_seconds)

    def stopped(**_: Any) -> None:
        warden.stop()
        reaper.stop()

    # Not weakly: nothing else refers to these.
    signals.worker_process_init.connect(child.open, weak=False)
    signals.worker_ready.connect(started, weak=False)
    signals.worker_shutting_down.connect(stopping, weak=False)
    signals.worker_shutdown.connect(stopped, weak=False)
    # With a receiver, Celery leaves logging as it is.
    signals.setup_logging.connect(_leave_logging, weak=False)


def _leave_logging(**_: Any) -> None:
    """Logging is configured by `python -m worker`."""
