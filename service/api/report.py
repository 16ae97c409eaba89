"""GET /jobs/{id}/report and GET /jobs/{id}/adapter: what a job left behind."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from loramend.contracts.errors import RequestError
from loramend.contracts.job import TERMINAL
from loramend.contracts.report import Report
from loramend.report.inline import script_policy
from service.api.caller import Asker
from service.api.content import blob_response
from service.api.jobs import JobId
from service.api.negotiation import choose
from service.api.problems import documented
from service.api.schema import header, ref
from service.api.state import Use
from service.jobs.records import BlobRef, JobRecord

router = APIRouter(tags=["results"])

ARCHIVE_TYPE = "application/gzip"
JSON_TYPE = "application/json"
HTML_TYPE = "text/html"
SARIF_TYPE = "application/sarif+json"
# The page repeats what an adapter's author wrote. It is escaped; were it not, this lets its own scripts run,
# by their digests, in an origin of their own, and nothing else. A page by another version stays still.
_POLICY = (
    f"{script_policy()}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts"
)
_RANGED = {
    "ETag": header("The sha256, quoted."),
    "Accept-Ranges": header("bytes"),
}
_PARTIAL: dict[int | str, dict[str, Any]] = {
    206: {
        "description": "The asked range",
        "headers": {**_RANGED, "Content-Range": header("bytes first-last/size")},
        "content": {ARCHIVE_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "Unchanged since the ETag in If-None-Match"},
}
_ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A .tar.gz of the repaired adapter, its report and model card",
        "headers": _RANGED,
        "content": {ARCHIVE_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    },
    **_PARTIAL,
    **documented(
        "not_found", "not_acceptable", "job_not_finished", "job_not_successful", "range_not_satisfiable",
        "storage_unavailable",
    ),
}  # fmt: skip


def _finished(record: JobRecord, ref: BlobRef | None, what: str) -> BlobRef:
    if record.status not in TERMINAL:
        raise RequestError(
            "job_not_finished", f"Job {record.id} is {record.status}; its {what} comes when it ends."
        )
    if ref is None:
        reason = f": {record.error.detail}" if record.error is not None else "."
        raise RequestError("job_not_successful", f"Job {record.id} {record.status} and has no {what}{reason}")
    return ref


@router.get(
    "/jobs/{job_id}/report",
    summary="The report",
    responses={
        200: {
            "description": "The report: JSON, one self-contained page for whoever prefers text/html, or "
            "SARIF 2.1.0",
            "headers": {
                "ETag": header("The sha256, quoted."),
                "Vary": header("Accept"),
                "Content-Security-Policy": header(
                    "With text/html: only the page's own scripts run, nothing is fetched."
                ),
            },
            "content": {
                JSON_TYPE: {"schema": ref(Report)},
                HTML_TYPE: {"schema": {"type": "string"}},
                SARIF_TYPE: {"schema": {"type": "object"}},
            },
        },
        304: {"description": "Unchanged since the ETag in If-None-Match"},
        **documented(
            "not_found", "not_acceptable", "job_not_finished", "job_not_successful", "storage_unavailable"
        ),
    },
)
def get_report(
    services: Use,
    caller: Asker,
    request: Request,
    job_id: JobId,
    accept: Annotated[str | None, Header(alias="Accept")] = None,
) -> Response:
    """What was measured and what each step did."""
    media = choose(accept, [JSON_TYPE, HTML_TYPE, SARIF_TYPE])
    record = services.job(job_id, caller)
    forms = {JSON_TYPE: record.report, HTML_TYPE: record.report_html, SARIF_TYPE: record.report_sarif}
    blob = _finished(record, forms[media], f"report as {media}")
    headers = {"Vary": "Accept"} | ({"Content-Security-Policy": _POLICY} if media == HTML_TYPE else {})
    return blob_response(
        request, services.storage, blob, etag=f'"{blob.sha256}"', media_type=media, headers=headers
    )


@router.head(
    "/jobs/{job_id}/adapter",
    operation_id="head_adapter",
    summary="The repaired adapter's size and digest",
    responses=_ARCHIVE,
)
@router.get("/jobs/{job_id}/adapter", summary="The repaired adapter", responses=_ARCHIVE)
def get_adapter(
    services: Use,
    caller: Asker,
    request: Request,
    job_id: JobId,
    accept: Annotated[str | None, Header(alias="Accept")] = None,
    range: Annotated[str | None, Header(alias="Range", description="One byte range.")] = None,
    if_range: Annotated[
        str | None, Header(alias="If-Range", description="The range counts only under this ETag.")
    ] = None,
) -> Response:
    """One archive; the files one by one are under the Hub's protocol."""
    choose(accept, [ARCHIVE_TYPE, "application/octet-stream"])
    record = services.job(job_id, caller)
    blob = _finished(record, record.archive, "adapter")
    name = f'attachment; filename="loramend-{record.id}.tar.gz"'
    return blob_response(
        request, services.storage, blob,
        etag=f'"{blob.sha256}"', media_type=ARCHIVE_TYPE, headers={"Content-Disposition": name},
    )  # fmt: skip
