"""`loramend cancel`: the end of a job that has not ended."""

import json as stdlib_json

import typer

from loramend.cli import options
from loramend.cli.errors import fails_in_one_line
from loramend.cli.output import print_json


@fails_in_one_line
def cancel(
    job_or_url: options.Job,
    json: options.Json = False,
    server: options.Server = options.DEFAULT_SERVER,
    key: options.Key = None,
) -> None:
    """Cancel a job: a queued one at once, a running one at its next module or training step."""
    from loramend.cli.client.address import locate_job
    from loramend.cli.client.connect import connected
    from loramend.cli.client.jobs import cancel_job

    server, job = locate_job(job_or_url, server)
    with connected(server, key) as client:
        found, document = cancel_job(client, job)
    if json:
        print_json(stdlib_json.loads(document))
    elif found.ended:
        typer.echo(f"Job {job} is {found.status}")
    else:
        typer.echo(f"Job {job} is {found.status} and stops at its next module or step: loramend watch {job}")
