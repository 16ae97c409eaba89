"""One delivery of one job: take the lease, run the phase, settle what comes of it.

The only place where errors become results.
"""

import logging

from redis.exceptions import RedisError

from loramend.contracts.errors import ErrorCode, JobError, LoramendError
from loramend.contracts.job import JobResult
from service.jobs.lease import Lease, LeaseLost
from service.jobs.records import Queue
from worker.errors import as_loramend_error
from worker.insist import insist
from worker.job import Work, work_folder
from worker.keeper import HandBack, Keeper, keeping
from worker.process import WorkerProcess
from worker.settings import WorkerSettings
from worker.tools import Tools

_LOG = logging.getLogger("worker.run")
# What may be otherwise in a minute: the job is not lost for it, it waits and is tried again.
_PASSING: frozenset[ErrorCode] = frozenset({"storage_unavailable", "disk_full"})


def run(job_id: str, queue: Queue, tools: Tools, settings: WorkerSettings, process: WorkerProcess) -> None:
    """Work on the job as far as `queue` goes, unless another worker is at it or there is nothing to do.

    Raises RedisError where the store does not answer; the lease then runs out and the reaper sends the job
    again.
    """
    process.take()
    lease = tools.store.acquire(job_id, process.name, settings.lease_seconds, queue=queue)
    if lease is None:
        _LOG.info("job %s is not to be run now", job_id, extra={"job": job_id})
        return
    _LOG.info("job %s: %s begins", job_id, queue, extra={"job": job_id, "fence": lease.fence})
    ttl, period = settings.lease_seconds, settings.progress_seconds
    with (
        process.holding(lease),
        keeping(tools.store, lease, process, ttl=ttl, period=period) as keeper,
    ):
        try:
            _settle(lease, _phase(lease, queue, keeper, tools, settings), tools)
        except LeaseLost:
            _LOG.warning("job %s was taken away", job_id, extra={"job": job_id})
        except HandBack:
            _hand_back(lease, tools)
        except RedisError:
            raise
        except Exception as error:
            _fail(lease, error, tools)


def _phase(
    lease: Lease, queue: Queue, keeper: Keeper, tools: Tools, settings: WorkerSettings
) -> "Queue | JobResult":
    """The queue's phase. Returns the queue that goes on, or the result."""
    keeper.check()
    with work_folder(settings.work_dir, lease) as folder:
        work = Work(tools.store.held(lease), lease, folder, keeper, tools, settings)
        # Imported here: only a child that does the work needs torch, or the Hub's client.
        if queue == "io":
            from worker.transfer import transfer

            return transfer(work)
        from worker.compute import measure_or_repair

        return measure_or_repair(work)


def _settle(lease: Lease, outcome: "Queue | JobResult", tools: Tools) -> None:
    if isinstance(outcome, JobResult):
        insist(lambda: tools.store.finish(lease, "succeeded", result=outcome))
        _LOG.info("job %s succeeded", lease.job_id, extra={"job": lease.job_id})
        return
    insist(lambda: tools.store.hand_on(lease, outcome))
    _send(lease.job_id, outcome, tools)


def _hand_back(lease: Lease, tools: Tools) -> None:
    try:
        queue = tools.store.release(lease)
    except LeaseLost:
        return
    _send(lease.job_id, queue, tools)
    _LOG.info("job %s is handed back", lease.job_id, extra={"job": lease.job_id})


def _fail(lease: Lease, error: Exception, tools: Tools) -> None:
    told = as_loramend_error(error)
    extra = {"job": lease.job_id}
    try:
        if told is not None and told.code == "canceled":
            insist(lambda: tools.store.finish(lease, "canceled"))
            _LOG.info("job %s canceled", lease.job_id, extra=extra)
            return
        if told is None:
            _LOG.error("job %s failed unexpectedly", lease.job_id, exc_info=error, extra=extra)
            told = JobError(
                "internal_error", "Something went wrong in the worker; its log has it under the job's id."
            )
        problem = told.problem()
        if told.code in _PASSING:
            waiting = insist(lambda: tools.store.set_back(lease, problem))
            if waiting.status == "queued":
                _LOG.warning("job %s waits: %s: %s", lease.job_id, told.code, told, extra=extra)
                return
        else:
            insist(lambda: tools.store.finish(lease, "failed", error=problem))
        _LOG.info("job %s ended: %s", lease.job_id, told.code, extra=extra)
    except LeaseLost:
        _LOG.warning("job %s was taken away as it failed", lease.job_id, extra=extra)


def _send(job_id: str, queue: Queue, tools: Tools) -> None:
    """A message that cannot be sent is sent by the reaper later."""
    try:
        tools.dispatcher.send(job_id, queue)
    except LoramendError as error:
        _LOG.warning("job %s waits for the reaper: %s", job_id, error, extra={"job": job_id})
