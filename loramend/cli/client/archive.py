"""The archive that a finished job left."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx

from loramend.cli.client.connect import detail_of, raise_for
from loramend.cli.client.jobs import get_job
from loramend.contracts.errors import JobError, RequestError
from loramend.contracts.job import Progress


def adapter_digest(client: httpx.Client, job: str) -> str:
    """sha256 of the archive that a finished job left.

    Raises JobError `job_not_finished` or `job_not_successful`, and the server's own refusals.
    """
    answer, _ = get_job(client, job)
    if answer.status in ("queued", "running"):
        raise JobError(
            "job_not_finished",
            f"job {job} is still {answer.status}: pull it once it has succeeded (loramend watch {job})",
        )
    if answer.status == "succeeded" and answer.result and answer.result.adapter_digest:
        return answer.result.adapter_digest
    what = {"succeeded": "was an inspection", "failed": "failed"}.get(answer.status, f"was {answer.status}")
    why = f": {detail_of(answer.error)}" if answer.error and detail_of(answer.error) else ""
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
        raise_for(response)
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
