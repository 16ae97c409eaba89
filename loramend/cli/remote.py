"""A loramend server's jobs, as a client reads them."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from loramend.cli.errors import CommandError
from loramend.contracts.errors import CODES, ErrorCode, JobError, RequestError
from loramend.contracts.job import Progress

_SECONDS = 60.0  # without a byte


class _Answer(BaseModel):
    """What is read of a server's answers; a newer server may say more."""

    model_config = ConfigDict(extra="ignore")


class _Result(_Answer):
    adapter_digest: str | None = None


class _Problem(_Answer):
    code: str | None = None
    detail: str | None = None


class _Job(_Answer):
    status: str
    result: _Result | None = None
    error: _Problem | None = None


@contextmanager
def connected(server: str, api_key: str | None) -> Iterator[httpx.Client]:
    """A client of the server at that URL.

    Raises CommandError `server_unreachable` for whatever goes wrong on the way to it.
    """
    # identity: what arrives is what the digest was taken of
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
    try:
        with httpx.Client(
            base_url=server, headers=headers, timeout=_SECONDS, follow_redirects=True
        ) as client:
            yield client
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise CommandError("server_unreachable", f"no answer from {server}: {reason}") from None


def adapter_digest(client: httpx.Client, job: str) -> str:
    """sha256 of the archive that a finished job left.

    Raises JobError `job_not_finished` or `job_not_successful`, and the server's own refusals.
    """
    response = client.get(f"/jobs/{job}")
    _raise_for(response)
    try:
        answer = _Job.model_validate_json(response.content)
    except ValidationError:
        raise CommandError("server_unreachable", f"{response.url} is no job of a loramend server") from None
    if answer.status in ("queued", "running"):
        raise JobError(
            "job_not_finished", f"job {job} is still {answer.status}: pull it once it has succeeded"
        )
    if answer.status == "succeeded" and answer.result and answer.result.adapter_digest:
        return answer.result.adapter_digest
    what = {"succeeded": "was an inspection", "failed": "failed"}.get(answer.status, f"was {answer.status}")
    why = f": {answer.error.detail}" if answer.error and answer.error.detail else ""
    raise JobError("job_not_successful", f"job {job} {what} and has no adapter{why}")


def download_archive(
    client: httpx.Client,
    job: str,
    archive: Path,
    *,
    sha256: str,
    max_bytes: int,
    on_progress: Callable[[Progress], None],
) -> None:
    """Stream the job's archive into a file.

    Raises RequestError `digest_mismatch` or `payload_too_large`, and the server's own refusals.
    """
    hasher = hashlib.sha256()
    done = 0
    with client.stream("GET", f"/jobs/{job}/adapter") as response, archive.open("wb") as file:
        if response.is_error:
            response.read()
        _raise_for(response)
        length = response.headers.get("content-length", "")
        total = int(length) if length.isdigit() else 0
        for chunk in response.iter_bytes(2**20):
            done += len(chunk)
            if done > max_bytes:
                raise RequestError("payload_too_large", f"the archive is larger than {max_bytes} bytes")
            hasher.update(chunk)
            file.write(chunk)
            on_progress(Progress(phase="fetch", done=done, total=max(total, done), unit="bytes", detail=job))
    if hasher.hexdigest() != sha256:
        raise RequestError(
            "digest_mismatch",
            f"the archive's sha256 is {hasher.hexdigest()}, and the job says {sha256}: pull it again",
        )


def _raise_for(response: httpx.Response) -> None:
    """The server's problem as the error it stands for."""
    if not response.is_error:
        return
    try:
        problem = _Problem.model_validate_json(response.content)
    except ValidationError:
        problem = _Problem()
    code: ErrorCode = next((known for known in CODES if known == problem.code), "internal_error")
    raise RequestError(code, problem.detail or f"{response.url} answered {response.status_code}")
