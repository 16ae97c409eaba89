"""POST and DELETE /jobs/{id}/pass: a browser's way to a job's results where API keys are asked for.

A browser that follows a link or saves a file sends no Authorization header, and a key has no place in an
address, which is kept in histories and logs. A cookie for these addresses alone stands in for it.
"""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.caller import Asker
from service.api.gate import RESULTS_COOKIE
from service.api.jobs import JobId
from service.api.problems import documented
from service.api.schema import header
from service.api.state import Use
from service.jobs.passes import PASS_SECONDS, Passes

router = APIRouter(tags=["results"])


@router.post(
    "/jobs/{job_id}/pass",
    summary="Let this browser open the job's results",
    status_code=204,
    responses={
        204: {
            "description": "Done",
            "headers": {
                "Set-Cookie": header(
                    "The pass: for this job, kept from scripts and other sites. Missing where no key was "
                    "sent, which needs none."
                )
            },
        },
        **documented("not_found"),
    },
)
def make_pass(services: Use, caller: Asker, request: Request, job_id: JobId) -> Response:
    """For ten minutes, GET and HEAD of the job's `report` and `adapter` go by a cookie as they do by the key
    that was sent here, and no longer than by the key itself."""
    services.job(job_id, caller)
    answer = Response(status_code=204)
    if caller.key_id is not None:
        _set(answer, request, job_id, Passes(services.redis).make(job_id, caller.key_id), PASS_SECONDS)
    return answer


@router.delete(
    "/jobs/{job_id}/pass",
    summary="Take that back",
    status_code=204,
    responses={204: {"description": "Done, or there was none"}, **documented("not_found")},
)
def drop_pass(services: Use, caller: Asker, request: Request, job_id: JobId) -> Response:
    """The pass that comes with this request opens nothing from now on."""
    services.job(job_id, caller)
    answer = Response(status_code=204)
    given = request.cookies.get(RESULTS_COOKIE)
    if given is not None:
        Passes(services.redis).drop(given)
        _set(answer, request, job_id, "", 0)
    return answer


def _set(answer: Response, request: Request, job_id: str, value: str, seconds: int) -> None:
    # Behind a proxy that speaks TLS the page's own origin tells of it; this server's scheme does not.
    secure = request.headers.get("origin", str(request.url)).startswith("https:")
    answer.set_cookie(
        RESULTS_COOKIE, value, max_age=seconds, path=f"/jobs/{job_id}", httponly=True, samesite="strict",
        secure=secure,
    )  # fmt: skip
