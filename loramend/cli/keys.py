"""`loramend keys`: make, list and revoke the API keys of a service."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from loramend.cli.errors import fails_in_one_line
from loramend.cli.jobstore import ask_keys, reached

app = typer.Typer(
    help="Make, list and revoke the API keys of a service, on the machine where it keeps them.",
    no_args_is_help=True,
)

Data = Annotated[
    Path | None,
    typer.Option(
        envvar="LORAMEND_DATA",
        help="Folder of `loramend serve`, running or not.",
        show_default="the broker at LORAMEND_BROKER_URL if that is set, else $XDG_DATA_HOME/loramend",
    ),
]


class Scope(StrEnum):
    """The contract's scopes, which would bring pydantic to every --help."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


@app.command()
@fails_in_one_line
def create(
    owner: Annotated[
        str, typer.Argument(metavar="OWNER", help="Whose jobs it sees: all keys of an owner see the same.")
    ],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="read: look at jobs; submit: make, cancel and delete them; admin: both, for all owners.",
            show_default="read and submit",
        ),
    ] = None,
    data: Data = None,
) -> None:
    """Make a key. It is printed this once, alone on stdout; what is kept cannot be turned back into it."""
    from loramend.contracts.keys import DEFAULT_SCOPES, NewApiKey

    with reached(data) as broker:
        answer = ask_keys(broker, "create", "--", owner, *(scope or DEFAULT_SCOPES))
    made = NewApiKey.model_validate_json(answer)
    typer.echo(made.key)
    typer.echo(
        f"Key {made.id} of {made.owner} ({', '.join(made.scopes)}). Keep it: it is not shown again. "
        "Clients send it as `Authorization: Bearer KEY`.",
        err=True,
    )


@app.command("list")
@fails_in_one_line
def list_keys(
    json: Annotated[bool, typer.Option("--json", help="As a JSON document.")] = False,
    data: Data = None,
) -> None:
    """List the keys, oldest first: ID, owner, scopes and when it was made."""
    from loramend.contracts.keys import ApiKeys

    with reached(data) as broker:
        answer = ask_keys(broker, "list")
    if json:
        typer.echo(answer, nl=False)
        return
    keys = ApiKeys.model_validate_json(answer).keys
    width = max((len(key.owner) for key in keys), default=0)
    for key in keys:
        made = f"{key.created_at:%Y-%m-%d %H:%M} UTC"
        typer.echo(f"{key.id}  {key.owner:<{width}}  {made}  {', '.join(key.scopes)}")
    if not keys:
        typer.echo("There are no keys: loramend keys create OWNER makes one.", err=True)


@app.command()
@fails_in_one_line
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Of `loramend keys list`; not the key.")],
    data: Data = None,
) -> None:
    """Revoke a key. It is refused from the next request on; its owner's jobs stay."""
    with reached(data) as broker:
        ask_keys(broker, "revoke", "--", key_id)
    typer.echo(f"Revoked key {key_id}.")
