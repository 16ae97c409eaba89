"""GET /healthz, /readyz and /metrics."""

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError

from loramend.contracts.errors import LoramendError, ProblemItem, RequestError
from service.api.documents import json_response
from service.api.metrics import CONTENT_TYPE
from service.api.problems import documented, problem_response, request_id_of
from service.api.schema import ok
from service.api.state import Services, Use
from service.jobs.queue import queue_key
from service.jobs.records import QUEUES, Queue

# Every repair passes these; a worker of `train` is needed only by the steps that train.
_NEEDED: tuple[Queue, ...] = ("io", "spectral")

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """The answer of a probe that passed."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ok"] = "ok"


@router.get("/healthz", summary="Is the process alive", responses={**ok(Health), **documented()})
async def healthz() -> Response:
    """Asks nothing of broker or storage."""
    return json_response(Health())


@router.get(
    "/readyz", summary="Can jobs be taken and run", responses={**ok(Health), **documented("not_ready")}
)
def readyz(services: Use, request: Request) -> Response:
    """Broker, storage, and a live worker for each queue a job may take; a 503 names what is missing."""
    missing = _missing(services)
    if not missing:
        return json_response(Health())
    error = RequestError("not_ready", "Not ready: " + "; ".join(item.detail for item in missing))
    problem = error.problem(request_id_of(request)).model_copy(update={"errors": missing})
    return problem_response(problem)


def _missing(services: Services) -> list[ProblemItem]:
    missing = []
    try:
        services.dispatcher.ready()
        served = services.store.served_queues()
        missing += [
            ProblemItem(pointer="/worker", detail=f"No live worker serves the queue {queue}.")
            for queue in _NEEDED
            if queue not in served
        ]
    except (LoramendError, RedisError):
        missing.append(ProblemItem(pointer="/broker", detail="The broker does not answer."))
    try:
        services.storage.ready()
    except LoramendError:
        missing.append(ProblemItem(pointer="/storage", detail="The storage takes no files."))
    return missing


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    responses={
        200: {"description": "Text format", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(),
    },
)
def metrics(services: Use) -> Response:
    """Requests, uploads, jobs by status, queue depths and live workers."""
    jobs = services.store.counts()
    queues = {queue: services.redis.llen(queue_key(queue)) for queue in QUEUES}
    body = services.metrics.exposition(jobs, queues, len(services.store.workers()))
    return Response(body, media_type=CONTENT_TYPE)
