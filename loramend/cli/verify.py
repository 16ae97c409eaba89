"""`loramend verify`: is this folder what was repaired, and who says so."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loramend.cli import options
from loramend.cli.errors import fails_in_one_line, printable
from loramend.cli.output import print_model
from loramend.cli.signing import check_can_sign

if TYPE_CHECKING:
    from loramend.contracts.verification import Verification

_EXIT = {"verified": 0, "failed": 1, "unproven": 3}
_VERDICT = {
    "verified": "Verified.",
    "failed": "Does not hold.",
    "unproven": "Its records agree, and nothing shows who wrote them.",
}


@fails_in_one_line
def verify(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="A repaired adapter, as repair, pull or the Hub gave it."),
    ],
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Public key (PEM) of whoever is to have signed it."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Check a repaired adapter's signature, and its files against its report and bill of materials.

    Exit code 0: signed with the key's private half, and all agrees. 1: something does not hold. 3: all
    agrees, but no signature was checked.
    """
    from loramend.contracts.errors import AdapterError
    from loramend.signing.verify import verify_folder

    if not folder.is_dir():
        raise AdapterError("adapter_not_found", f"{folder} is no folder")
    if key is not None:
        check_can_sign()
    found = verify_folder(folder, key)
    if json:
        print_model(found)
    else:
        _print(found)
    raise typer.Exit(_EXIT[found.verdict])


def _print(found: "Verification") -> None:
    typer.echo(_VERDICT[found.verdict])
    for each in found.problems:
        typer.echo("  wrong         " + printable(f"{each.path or 'the folder'}: {each.detail}"))
    for line in found.verified:
        typer.echo("  verified      " + printable(line))
    for line in found.not_verified:
        typer.echo("  not verified  " + printable(line))
