"""`loramend watch`: a job as it goes on, and what came of it."""

import typer

from loramend.cli import options
from loramend.cli.errors import fails_in_one_line


@fails_in_one_line
def watch(
    job_or_url: options.Job,
    json: options.JsonLines = False,
    server: options.Server = options.DEFAULT_SERVER,
    key: options.Key = None,
) -> None:
    """Follow a job to its end, with progress and the time left; exit code 0 only where it succeeded.

    Ctrl-C ends the watching, not the job. A server that restarts is waited for.
    """
    from loramend.cli.client.address import locate_job
    from loramend.cli.jobtables import next_command
    from loramend.cli.watching import until_ended

    server, job = locate_job(job_or_url, server)
    ended, summary = until_ended(server, key, job, events_on_stdout=json)
    if json:
        return
    took = "" if ended.seconds is None else f" after {ended.seconds:.1f} s"
    typer.echo(f"Job {job} succeeded{took}.")
    for line in summary:
        typer.echo(line)
    typer.echo(f"\n{next_command(ended, server)}")
