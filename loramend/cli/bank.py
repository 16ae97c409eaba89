"""`loramend bank`: a bank of adapters, to set others beside."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from loramend.cli import options
from loramend.cli.errors import CommandError, fails_in_one_line, printable
from loramend.cli.output import check_writable, print_model, write_text
from loramend.cli.signals import interrupts_held

app = typer.Typer(
    help="Make a bank of adapters that you trust, which inspect, repair and serve set others beside.",
    no_args_is_help=True,
)


@app.command()
@fails_in_one_line
def build(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Each subfolder, archive and .safetensors file in it is taken for an adapter."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The bank to write.")] = Path("bank.json"),
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    json: options.Json = False,
) -> None:
    """Build a bank: statistics of every adapter in DIR, module by module, and the digests of their files.

    What cannot be read is told and left out. The same adapters give the same file. It holds no weights.
    """
    if out.exists() and not out.is_dir() and not force:
        raise CommandError(
            "output_exists", f"there is a file {out}: pass --force, or name another with --out"
        )
    check_writable(out, "--out")
    with interrupts_held():
        from loramend.bank.build import build_bank
        from loramend.bank.file import bank_text, read_bank
        from loramend.cli.progress import progress_on_stderr
        from loramend.contracts.bank import BankBuilt

    with tempfile.TemporaryDirectory(prefix="loramend-") as scratch, progress_on_stderr() as on_progress:
        bank, skipped = build_bank(folder.expanduser(), Path(scratch), on_progress=on_progress)
    write_text(out, bank_text(bank))
    names = [adapter.name for adapter in bank.adapters]
    if json:
        digest = read_bank(out).sha256
        print_model(BankBuilt(file=str(out), sha256=digest, adapters=names, skipped=skipped))
        return
    for each in skipped:
        typer.echo(printable(f"Left out {each.name}: {each.code}: {each.detail}"))
    typer.echo(f"{len(names)} adapter{'s' if len(names) != 1 else ''} in the bank {out}.")


@app.command()
@fails_in_one_line
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A bank of `loramend bank build`.")],
    json: Annotated[bool, typer.Option("--json", help="Print the bank itself, and nothing else.")] = False,
) -> None:
    """Show what a bank holds: its adapters by what they can be compared with, and how far these agree."""
    from loramend.bank.file import read_bank

    opened = read_bank(file)
    if json:
        print_model(opened.bank)
        return
    from loramend.cli.banktables import print_bank

    print_bank(opened)
