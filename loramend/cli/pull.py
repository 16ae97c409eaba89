"""`loramend pull`: a finished job's adapter, from a loramend server into a folder."""

import re
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from loramend.cli.errors import fails_in_one_line
from loramend.cli.output import new_folder

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_JOB_URL = re.compile(r"(?P<server>https?://[^?#]+?)/jobs/(?P<job>[A-Za-z0-9_-]{1,64})(?:/adapter)?/?")


@fails_in_one_line
def pull(
    job_or_url: Annotated[str, typer.Argument(metavar="JOB_OR_URL", help="A job's ID, or its URL.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; it must not exist, or be empty.")],
    server: Annotated[
        str, typer.Option(envvar="LORAMEND_SERVER", help="Where the job is, if only its ID is given.")
    ] = "http://127.0.0.1:8000",
    api_key: Annotated[str | None, typer.Option(envvar="LORAMEND_API_KEY", help="Its API key.")] = None,
) -> None:
    """Download the repaired adapter of a finished job, check its digest and unpack it."""
    server, job = _locate(job_or_url, server)

    from loramend.adapter.archive import extract
    from loramend.adapter.limits import Limits
    from loramend.cli.progress import progress_on_stderr
    from loramend.cli.remote import adapter_digest, connected, download_archive

    limits = Limits()
    with (
        new_folder(out) as folder,
        # beside the folder: whatever names the archive holds, it is in none's way
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".loramend-") as scratch,
    ):
        archive = Path(scratch) / "archive"
        with connected(server, api_key) as client, progress_on_stderr() as on_progress:
            sha256 = adapter_digest(client, job)
            download_archive(
                client,
                job,
                archive,
                sha256=sha256,
                max_bytes=limits.max_archive_bytes,
                on_progress=on_progress,
            )
        extract(archive, folder, limits)
    typer.echo(f"Pulled job {job} into {out}")


def _locate(job_or_url: str, server: str) -> tuple[str, str]:
    """(server, job id). Raises typer.BadParameter."""
    url = _JOB_URL.fullmatch(job_or_url)
    if url:
        return url["server"], url["job"]
    if not _JOB_ID.fullmatch(job_or_url):
        raise typer.BadParameter(f"'{job_or_url}' is neither a job's ID nor a URL such as {server}/jobs/JOB")
    if not re.match(r"https?://", server):
        raise typer.BadParameter(f"--server must be an http:// or https:// URL, not '{server}'")
    return server.rstrip("/"), job_or_url
