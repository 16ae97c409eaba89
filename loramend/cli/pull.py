"""`loramend pull`: a finished job's adapter, from a loramend server into a folder."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from loramend.cli import options
from loramend.cli.errors import fails_in_one_line
from loramend.cli.output import new_folder, print_json


@fails_in_one_line
def pull(
    job_or_url: options.Job,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; it must not exist, or be empty.")],
    json: options.Json = False,
    server: options.Server = options.DEFAULT_SERVER,
    key: options.Key = None,
) -> None:
    """Download the repaired adapter of a finished job, check its digest and unpack it."""
    from loramend.cli.client.address import locate_job

    server, job = locate_job(job_or_url, server)
    sha256 = pull_adapter(server, key, job, out)
    if json:
        print_json({"job": job, "out": str(out), "sha256": sha256})
    else:
        typer.echo(f"Pulled job {job} into {out}")


def pull_adapter(server: str, key: str | None, job: str, out: Path) -> str:
    """The archive's files in the new folder `out`; the archive's sha256."""
    from loramend.adapter.archive import extract
    from loramend.adapter.limits import Limits
    from loramend.cli.client.archive import adapter_digest, download_archive
    from loramend.cli.client.connect import connected
    from loramend.cli.progress import progress_on_stderr

    limits = Limits()
    with (
        new_folder(out) as folder,
        # beside the folder: whatever names the archive holds, it is in none's way
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".loramend-") as scratch,
    ):
        archive = Path(scratch) / "archive"
        with connected(server, key) as client, progress_on_stderr() as on_progress:
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
    return sha256
