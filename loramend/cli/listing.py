"""`loramend list`: the jobs of a server."""

from typing import Annotated, Literal

import typer

from loramend.cli import options
from loramend.cli.errors import fails_in_one_line
from loramend.cli.output import print_json


@fails_in_one_line
def list_jobs(
    status: Annotated[
        Literal["queued", "running", "succeeded", "failed", "canceled"] | None,
        typer.Option(help="Only jobs with this status."),
    ] = None,
    kind: Annotated[Literal["repair", "inspect"] | None, typer.Option(help="Only jobs of this kind.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on where an earlier list says `next_cursor`.")
    ] = None,
    json: options.Json = False,
    server: options.Server = options.DEFAULT_SERVER,
    key: options.Key = None,
) -> None:
    """List jobs, newest first."""
    from loramend.cli.client.address import check_server
    from loramend.cli.client.connect import connected
    from loramend.cli.client.jobs import list_jobs as ask
    from loramend.cli.jobtables import print_jobs

    with connected(check_server(server), key) as client:
        jobs, page = ask(client, limit=limit, status=status, kind=kind, cursor=cursor)
    if json:
        print_json(page)
    else:
        print_jobs(jobs, page["next_cursor"])
