"""`loramend keys`: make, list and revoke the API keys of a service."""

import re
from datetime import UTC, datetime
from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from loramend.cli.errors import fails_in_one_line
from loramend.cli.jobstore import ask_keys, reached
from loramend.cli.options import Json

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


_UNITS = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_LONGEST = 100 * 365 * 24 * 3600


def seconds_of(text: str) -> int:
    """A time such as 30d in seconds."""
    match = re.fullmatch(r"([0-9]{1,9})([mhdw])", text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST:
        raise typer.BadParameter(
            f"{text!r} is no time of up to 100 years: write 90m, 12h, 30d or 8w for minutes, hours, days "
            "or weeks."
        )
    return seconds


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
    expires: Annotated[
        int | None,
        typer.Option(
            parser=seconds_of,
            metavar="TIME",
            help="Refuse it after this time: 90m, 12h, 30d or 8w.",
            show_default="never",
        ),
    ] = None,
    json: Json = False,
    data: Data = None,
) -> None:
    """Make a key. It is printed this once, alone on stdout; what is kept cannot be turned back into it."""
    from loramend.contracts.keys import DEFAULT_SCOPES, NewApiKey

    lifetime = () if expires is None else ("--seconds", str(expires))
    with reached(data) as broker:
        answer = ask_keys(broker, "create", *lifetime, "--", owner, *(scope or DEFAULT_SCOPES))
    if json:
        typer.echo(answer, nl=False)
        return
    made = NewApiKey.model_validate_json(answer)
    typer.echo(made.key)
    typer.echo(
        f"Key {made.id} of {made.owner} ({', '.join(made.scopes)}), "
        f"{_ending(made.expires_at)}. Keep it: it is not shown again. "
        "Clients send it as `Authorization: Bearer KEY`.",
        err=True,
    )


@app.command("list")
@fails_in_one_line
def list_keys(
    json: Json = False,
    data: Data = None,
) -> None:
    """List the keys, oldest first: ID, owner, when it was made, when it expires, scopes."""
    from loramend.contracts.keys import ApiKeys

    with reached(data) as broker:
        answer = ask_keys(broker, "list")
    if json:
        typer.echo(answer, nl=False)
        return
    keys = ApiKeys.model_validate_json(answer).keys
    width = max((len(key.owner) for key in keys), default=0)
    longest = max((len(_ending(key.expires_at)) for key in keys), default=0)
    for key in keys:
        made, ending = f"{key.created_at:%Y-%m-%d %H:%M} UTC", _ending(key.expires_at)
        typer.echo(f"{key.id}  {key.owner:<{width}}  {made}  {ending:<{longest}}  {', '.join(key.scopes)}")
    if not keys:
        typer.echo("There are no keys: loramend keys create OWNER makes one.", err=True)


@app.command()
@fails_in_one_line
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Of `loramend keys list`; not the key.")],
    json: Json = False,
    data: Data = None,
) -> None:
    """Revoke a key. It is refused from the next request on; its owner's jobs stay."""
    with reached(data) as broker:
        ask_keys(broker, "revoke", "--", key_id)
    typer.echo(dumps({"revoked": key_id}) if json else f"Revoked key {key_id}.")


def _ending(expires_at: datetime | None) -> str:
    """When a key ends, or ended, in words."""
    if expires_at is None:
        return "never expires"
    word = "expired" if expires_at <= datetime.now(UTC) else "expires"
    return f"{word} {expires_at:%Y-%m-%d %H:%M} UTC"
