"""`loramend status`: how a job stands."""

import json as stdlib_json

from loramend.cli import options
from loramend.cli.errors import fails_in_one_line
from loramend.cli.output import print_json


@fails_in_one_line
def status(
    job_or_url: options.Job,
    json: options.Json = False,
    server: options.Server = options.DEFAULT_SERVER,
    key: options.Key = None,
) -> None:
    """Show a job: its status, how far it is, and what became of it."""
    from loramend.cli.client.address import locate_job
    from loramend.cli.client.connect import connected
    from loramend.cli.client.jobs import get_job
    from loramend.cli.jobtables import print_job

    server, job = locate_job(job_or_url, server)
    with connected(server, key) as client:
        found, document = get_job(client, job)
    if json:
        print_json(stdlib_json.loads(document))
    else:
        print_job(found, server)
