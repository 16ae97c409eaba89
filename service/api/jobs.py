"""GET /jobs, GET /jobs/{id}, POST /jobs/{id}/cancel, DELETE /jobs/{id}."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from loramend.contracts.job import Job, JobPage, JobStatus
from loramend.contracts.request import JobKind
from service.api.caller import Asker
from service.api.documents import json_response, tagged_response
from service.api.problems import documented
from service.api.schema import header, ok
from service.api.state import Use

router = APIRouter(tags=["jobs"])

JobId = Annotated[str, Path(description="The job's ID.")]


@router.get("/jobs", summary="Jobs, newest first", responses={**ok(JobPage), **documented("request_invalid")})
def list_jobs(
    services: Use,
    caller: Asker,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the page before.", pattern="^[0-9a-f]{32}$")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    status: Annotated[JobStatus | None, Query(description="Only jobs with this status.")] = None,
    kind: Annotated[JobKind | None, Query(description="Only jobs of this kind.")] = None,
) -> Response:
    """One page; `next_cursor` is null on the last."""
    records, next_cursor = services.store.page(
        cursor, limit, status=status, kind=kind, owner=caller.sees_only
    )
    return json_response(JobPage(jobs=[record.public() for record in records], next_cursor=next_cursor))


@router.get(
    "/jobs/{job_id}",
    summary="One job",
    responses={
        **ok(Job, headers={"ETag": header("Weak; send it back as If-None-Match.")}),
        304: {"description": "Unchanged since the ETag in If-None-Match"},
        **documented("not_found"),
    },
)
def get_job(services: Use, caller: Asker, request: Request, job_id: JobId) -> Response:
    """Status, progress and, once it has ended, the result or the error."""
    return tagged_response(request, services.job(job_id, caller).public())


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Cancel a job",
    responses={**ok(Job), **documented("not_found", "job_already_finished")},
)
def cancel_job(services: Use, caller: Asker, job_id: JobId) -> Response:
    """A queued job is canceled at once, a running one within two seconds."""
    services.job(job_id, caller)
    return json_response(services.store.request_cancel(job_id).public())


@router.delete(
    "/jobs/{job_id}",
    summary="Delete a job with all its files",
    status_code=204,
    responses={204: {"description": "Deleted"}, **documented("not_found", "storage_unavailable")},
)
def delete_job(services: Use, caller: Asker, job_id: JobId) -> Response:
    """Files that another job or an upload holds stay. A running job's worker stops within two seconds."""
    services.job(job_id, caller)
    services.store.blobs.delete(services.store.delete(job_id), services.storage)
    return Response(status_code=204)
